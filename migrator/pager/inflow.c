/*
 * What brings the pages in, without Python's lock: the loops of python_inflow.py in C. One thread answers page faults,
 * one for each link fetches the bulk. One lock is held while events are read and while pages are filled (spaces.h);
 * who answers faults goes first for it, and whoever holds it inherits that thread's priority meanwhile.
 *
 * Functions return one of `enum outcome`; where something failed there is a sentence for `lifeboat_reason`.
 */
#define _GNU_SOURCE
#include "spaces.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FAULT_BYTES (8 << 10) /* as in python_inflow.py */
#define FAULTS_AT_ONCE 16
#define BULK_BYTES (256 << 10) /* each byte is touched three times at either end: in the second cache it is near */
#define BULK_UNDER_WAY 16
#define LOCKED_PAGES 8 /* filled before a fault may have the lock: some 10 us */
#define POLL_MS 50
#define LONGEST_BYTES (16 << 20) /* of an answer, as in greeting.py */
#define CLASSES 32

enum outcome {
	NOTHING = 0, /* nothing to do now */
	UNPACK = 1, /* the bulk's answer is compressed: unpack it, then go on */
	BROKEN_LINK = -1,
	BAD_ANSWER = -2,
	LOST = -3,
};

struct fault {
	struct space *space;
	uint64_t address;
	double read_at;
};

struct inflow {
	pthread_mutex_t lock;
	pthread_mutex_t turn; /* of the bulk's links: waiting for `lock` they would spin, for a processor others need */
	pthread_cond_t calm; /* nobody who answers faults waits for the lock */
	pthread_cond_t changed; /* something has come, or a request of the bulk is done */
	int urgent; /* who waits so; changed without the lock */
	int flowing, closed;
	int failed; /* once something was lost count of nothing is complete any more */
	int events;
	int guard; /* who holds every userfaultfd, too (guard.py) */
	struct space **spaces;
	size_t count;
	struct fault *owed; /* read, not answered; only who answers faults touches these */
	size_t owed_count, owed_room;
	struct counts counts;
	uint64_t faults, classes[CLASSES];
	uint32_t limits_us[CLASSES];
	int limit_count;
};

/* What one link of the bulk has asked for, in order, and the answer that has come. */
struct window {
	struct wanted wanted[BULK_UNDER_WAY];
	int count;
	int unpacked; /* whether the answer in `data` is to be filled in */
	struct answer answer;
	unsigned char *data, *packed; /* BULK_BYTES each */
};

static int lost(void)
{
	lifeboat_note("the pager");
	return LOST;
}

static void lock_urgently(struct inflow *inflow)
{
	__atomic_add_fetch(&inflow->urgent, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&inflow->lock);
	__atomic_sub_fetch(&inflow->urgent, 1, __ATOMIC_SEQ_CST);
}

static void lock_patiently(struct inflow *inflow)
{
	pthread_mutex_lock(&inflow->lock);
	while (__atomic_load_n(&inflow->urgent, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&inflow->calm, &inflow->lock);
}

static void unlock(struct inflow *inflow)
{
	pthread_cond_broadcast(&inflow->calm); /* cost nothing while nobody waits */
	pthread_cond_broadcast(&inflow->changed);
	pthread_mutex_unlock(&inflow->lock);
}

/* Let go after something that may have failed; returns LOST if it has. */
static int unlock_after(struct inflow *inflow, int failed)
{
	int code = failed ? lost() : NOTHING;

	inflow->failed |= failed != 0;
	unlock(inflow);
	return code;
}

/*
 * `limits_us` are the upper limits of the classes in which the latencies of faults are counted; `guard` is the socket
 * on which the guard is given descriptors.
 */
struct inflow *lifeboat_inflow(const uint32_t *limits_us, int limit_count, int guard)
{
	struct inflow *inflow = calloc(1, sizeof(*inflow));
	pthread_mutexattr_t kind;
	pthread_condattr_t clock;

	if (!inflow || limit_count >= CLASSES)
		return NULL;
	pthread_mutexattr_init(&kind);
	pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&inflow->lock, &kind);
	pthread_mutex_init(&inflow->turn, NULL);
	pthread_cond_init(&inflow->calm, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&inflow->changed, &clock);
	memcpy(inflow->limits_us, limits_us, limit_count * sizeof(*limits_us));
	inflow->limit_count = limit_count;
	inflow->flowing = 1;
	inflow->guard = guard;
	inflow->events = epoll_create1(EPOLL_CLOEXEC);
	return inflow->events < 0 ? NULL : inflow;
}

static int add(struct inflow *inflow, struct space *space)
{
	struct epoll_event wanted = { .events = EPOLLIN, .data.ptr = space };
	struct space **spaces;

	if (!space)
		return FAILED;
	spaces = realloc(inflow->spaces, (inflow->count + 1) * sizeof(*spaces));
	if (!spaces)
		return FAILED;
	inflow->spaces = spaces;
	inflow->spaces[inflow->count++] = space;
	space->events = inflow->events;
	return epoll_ctl(inflow->events, EPOLL_CTL_ADD, space->userfault, &wanted) ? FAILED : 0;
}

/* Know what is missing of a new process: `ranges` are `count` pairs of addresses. */
int lifeboat_inflow_add(struct inflow *inflow, uint32_t pid, int userfault, const uint64_t *ranges, size_t count)
{
	lock_urgently(inflow);
	return unlock_after(inflow, add(inflow, space_of(pid, userfault, ranges, count)));
}

/* Give no page, read no event, until `flowing` is not 0 again. */
void lifeboat_inflow_flow(struct inflow *inflow, int flowing)
{
	lock_urgently(inflow);
	inflow->flowing = flowing;
	unlock(inflow);
}

/* Write how much is missing, what was counted, and the classes of latencies. */
void lifeboat_inflow_tell(struct inflow *inflow, uint64_t *numbers)
{
	struct counts counts;
	size_t index;
	uint64_t missing = 0;

	lock_urgently(inflow);
	for (index = 0; index < inflow->count; index++)
		if (!inflow->spaces[index]->gone)
			missing += inflow->spaces[index]->pending.bytes;
	counts = inflow->counts;
	numbers[5] = inflow->faults;
	memcpy(numbers + 6, inflow->classes, (inflow->limit_count + 1) * sizeof(*numbers));
	unlock(inflow);
	numbers[0] = missing;
	numbers[1] = counts.received;
	numbers[2] = counts.wire;
	numbers[3] = counts.zero;
	numbers[4] = counts.poisoned;
}

static int is_missing(struct inflow *inflow)
{
	size_t index;

	for (index = 0; index < inflow->count; index++)
		if (!inflow->spaces[index]->gone && inflow->spaces[index]->pending.count)
			return 1;
	return inflow->failed;
}

/* Wait a moment for what others bring; return 1 while anything is missing. */
int lifeboat_inflow_rest(struct inflow *inflow)
{
	struct timespec until;
	int missing;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += POLL_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&inflow->lock);
	missing = is_missing(inflow);
	if (missing)
		pthread_cond_timedwait(&inflow->changed, &inflow->lock, &until);
	pthread_mutex_unlock(&inflow->lock);
	return missing;
}

static int owe(struct inflow *inflow, struct fault fault)
{
	if (inflow->owed_count == inflow->owed_room) {
		size_t room = 2 * inflow->owed_room + FAULTS_AT_ONCE;
		struct fault *owed = realloc(inflow->owed, room * sizeof(*owed));

		if (!owed)
			return FAILED;
		inflow->owed = owed;
		inflow->owed_room = room;
	}
	inflow->owed[inflow->owed_count++] = fault;
	return 0;
}

/* Let the guard hold a userfaultfd, too; one that was killed guards nothing, we ourselves still do. */
static void guard_it(struct inflow *inflow, int userfault)
{
	char word = 'h', room[CMSG_SPACE(sizeof(int))];
	struct iovec part = { &word, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *head;

	memset(room, 0, sizeof(room));
	head = CMSG_FIRSTHDR(&message);
	*head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &userfault, sizeof(int));
	while (sendmsg(inflow->guard, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

static int forked(struct inflow *inflow, struct space *space, int userfault)
{
	guard_it(inflow, userfault);
	return add(inflow, space_child(space, userfault));
}

/* Read all events of a space and follow them; faults are owed, unless `keep` is 0. The lock is held. */
static int read_events(struct inflow *inflow, struct space *space, int keep)
{
	uint64_t value;
	int event;

	while (!space->gone && (event = space_read_event(space, &value)) != NO_EVENT) {
		if (event == FAILED || (event == FORKED && forked(inflow, space, (int)value)))
			return FAILED;
		if (event == FAULT && keep && owe(inflow, (struct fault){ space, value, lifeboat_now() }))
			return FAILED;
	}
	return 0;
}

/* Poison what is missing; return 1 when nothing is missing any more, 0 when this has to be done again. */
int lifeboat_inflow_poison(struct inflow *inflow, uint64_t *poisoned)
{
	size_t index;
	int failed = 0, missing;

	lock_urgently(inflow);
	for (index = 0; index < inflow->count && !failed; index++)
		failed = read_events(inflow, inflow->spaces[index], 0) || space_poison(inflow->spaces[index], poisoned);
	missing = is_missing(inflow);
	return unlock_after(inflow, failed) ? LOST : !missing;
}

/* Give all userfaultfds away, to be closed; return how many. Nothing was done when that is more than `room`. */
size_t lifeboat_inflow_surrender(struct inflow *inflow, int *found, size_t room)
{
	size_t index, count = 0;

	lock_urgently(inflow);
	for (index = 0; index < inflow->count; index++)
		count += !inflow->spaces[index]->gone;
	if (count <= room) {
		inflow->closed = 1;
		count = 0;
		for (index = 0; index < inflow->count; index++) {
			struct space *space = inflow->spaces[index];

			if (!space->gone)
				found[count++] = space->userfault;
			space->gone = 1;
		}
	}
	unlock(inflow);
	return count;
}

static int bad_answer(void)
{
	errno = EPROTO;
	lifeboat_note("the source's answer");
	return BAD_ANSWER;
}

/* Read kinds; return how many pages follow, -1 when one is named that is not there. */
static long places_of(struct answer *answer, const uint16_t *kinds)
{
	long page, kept = 0;

	for (page = 0; page < answer->pages; page++) {
		uint16_t kind = kinds[page];

		if (kind == WHOLE)
			answer->place[page] = kept++;
		else if (kind == ZERO || kind == BAD)
			answer->place[page] = kind == ZERO ? NO_PLACE_ZERO : NO_PLACE_BAD;
		else if (kind < page && kinds[kind] == WHOLE)
			answer->place[page] = answer->place[kind];
		else
			return -1;
	}
	return kept;
}

/*
 * Receive the answer to a request: NOTHING with it in `data`, or UNPACK with it in `packed`; without `packed` none may
 * come compressed.
 */
static int receive(struct link *link, const struct wanted *wanted, struct answer *answer, unsigned char *data,
		   unsigned char *packed)
{
	uint64_t length = wanted->part.end - wanted->part.start;
	struct __attribute__((packed)) {
		struct head head;
		uint16_t kinds[MOST_PAGES];
	} start;
	uint16_t kinds[MOST_PAGES];
	size_t words = length / PAGE * sizeof(uint16_t);
	long found;

	if (lifeboat_receive(link, (unsigned char *)&start, sizeof(struct head) + words))
		return BROKEN_LINK;
	memcpy(kinds, start.kinds, words);
	answer->pages = length / PAGE;
	answer->data = data;
	found = places_of(answer, kinds);
	if (found < 0 || start.head.length < words)
		return bad_answer();
	answer->packed_bytes = start.head.length - words;
	answer->kept_bytes = (uint64_t)found * PAGE;
	answer->wire = sizeof(struct head) + start.head.length;
	if (start.head.form == PLAIN ? answer->packed_bytes != answer->kept_bytes :
				       !packed || start.head.form != COMPRESSED || answer->packed_bytes > BULK_BYTES)
		return bad_answer();
	if (answer->packed_bytes &&
	    lifeboat_receive(link, start.head.form == PLAIN ? data : packed, answer->packed_bytes))
		return BROKEN_LINK;
	return start.head.form == PLAIN ? NOTHING : UNPACK;
}

/* How much a window's `data` and `packed` must hold. */
size_t lifeboat_inflow_bulk_bytes(void)
{
	return BULK_BYTES;
}

static int ask(struct link *link, const struct wanted *wanted)
{
	struct request request = { wanted->held ? ASK_HELD : ASK_PAGES, wanted->space->pid, wanted->part.origin,
				   wanted->part.end - wanted->part.start };

	return lifeboat_send(link, (unsigned char *)&request, sizeof(request)) ? BROKEN_LINK : 0;
}

/* Fill an answer of the bulk in small steps, one link at a time. */
static int fill(struct inflow *inflow, const struct wanted *wanted, const struct answer *answer)
{
	long first, last;
	int failed = 0;

	pthread_mutex_lock(&inflow->turn);
	for (first = 0; first < answer->pages && !failed; first = last) {
		last = first + LOCKED_PAGES < answer->pages ? first + LOCKED_PAGES : answer->pages;
		lock_patiently(inflow);
		if (!first)
			inflow->counts.wire += answer->wire;
		if (inflow->flowing)
			failed = space_fill(wanted->space, wanted->part, answer, first, last, &inflow->counts);
		failed = unlock_after(inflow, failed);
	}
	pthread_mutex_unlock(&inflow->turn);
	return failed;
}

static void note_latency(struct inflow *inflow, const struct fault *fault)
{
	double us = (lifeboat_now() - fault->read_at) * 1e6;
	int class = 0;

	while (class < inflow->limit_count && inflow->limits_us[class] <= us)
		class++;
	inflow->classes[class]++;
	inflow->faults++;
}

/* Say what to ask for: 1; 0 when the fault is answered already, 2 when it has to wait. The lock is held. */
static int want(struct inflow *inflow, const struct fault *fault, const struct wanted *asked, int count,
		struct wanted *next)
{
	struct space *space = fault->space;
	int index, found;

	for (index = 0; index < count; index++)
		if (asked[index].space == space && asked[index].part.start <= fault->address &&
		    fault->address < asked[index].part.end)
			return 2;
	if (space->gone)
		return 0;
	*next = (struct wanted){ .space = space };
	if (pending_find(&space->pending, fault->address, fault->address + FAULT_BYTES, &next->part) &&
	    next->part.start == fault->address) {
		space->cursor = next->part.end;
		return pending_drop(&space->asked, fault->address, next->part.end) ? FAILED : 1;
	}
	found = space_give_zero(space, fault->address);
	if (found == 1)
		note_latency(inflow, fault);
	return found < 0 ? FAILED : found ? 0 : 2;
}

/* Fill what a fault has brought, and say whether its page is there now. */
static int fill_fault(struct inflow *inflow, const struct wanted *wanted, const struct answer *answer,
		      const struct fault *fault, int *answered)
{
	struct range missing;
	int failed = 0;

	lock_urgently(inflow);
	inflow->counts.wire += answer->wire;
	if (inflow->flowing)
		failed = space_fill(wanted->space, wanted->part, answer, 0, answer->pages, &inflow->counts);
	*answered = fault->space->gone ||
		    !pending_find(&fault->space->pending, fault->address, fault->address + PAGE, &missing);
	if (*answered)
		note_latency(inflow, fault);
	return unlock_after(inflow, failed);
}

/* Faults that are answered together, each with what is asked for it. */
struct batch {
	struct fault asked_by[FAULTS_AT_ONCE], later[FAULTS_AT_ONCE];
	struct wanted asked[FAULTS_AT_ONCE];
	int asking, waiting;
	size_t taken; /* of those that are owed */
};

/* Take the first that are owed; returns FAILED or 0. The lock is held. */
static int take_owed(struct inflow *inflow, struct batch *batch)
{
	batch->asking = batch->waiting = 0;
	for (batch->taken = 0; batch->taken < inflow->owed_count && batch->taken < FAULTS_AT_ONCE; batch->taken++) {
		const struct fault *fault = inflow->owed + batch->taken;
		int code = want(inflow, fault, batch->asked, batch->asking, batch->asked + batch->asking);

		if (code == FAILED)
			return FAILED;
		if (code == 2)
			batch->later[batch->waiting++] = *fault;
		else if (code == 1)
			batch->asked_by[batch->asking++] = *fault;
	}
	return 0;
}

/* Answer what was taken; until all of it is answered it stays in `owed`. */
static int answer_batch(struct inflow *inflow, struct link *link, struct batch *batch, unsigned char *data)
{
	struct answer answer;
	int index, code;

	for (index = 0; index < batch->asking; index++)
		if (ask(link, batch->asked + index))
			return BROKEN_LINK;
	for (index = 0; index < batch->asking; index++) {
		const struct fault *fault = batch->asked_by + index;
		int answered = 0;

		code = receive(link, batch->asked + index, &answer, data, NULL);
		if (!code)
			code = fill_fault(inflow, batch->asked + index, &answer, fault, &answered);
		if (code)
			return code;
		if (!answered)
			batch->later[batch->waiting++] = *fault;
	}
	inflow->owed_count -= batch->taken;
	memmove(inflow->owed, inflow->owed + batch->taken, inflow->owed_count * sizeof(struct fault));
	memcpy(inflow->owed + inflow->owed_count, batch->later, batch->waiting * sizeof(struct fault));
	inflow->owed_count += batch->waiting;
	return NOTHING;
}

/*
 * Read events and answer faults on the link for them, until there is nothing to do for a moment. `data` has
 * FAULT_BYTES.
 */
int lifeboat_inflow_answer(struct inflow *inflow, struct link *link, unsigned char *data)
{
	struct epoll_event ready[FAULTS_AT_ONCE];
	struct batch batch;
	int pause_ms = 0, code = NOTHING;

	while (!code) {
		int failed = 0, stop;
		int count = epoll_wait(inflow->events, ready, FAULTS_AT_ONCE, inflow->owed_count ? pause_ms : POLL_MS);
		int index;
		size_t before;

		lock_urgently(inflow); /* once for all: each time the bulk may have to be waited for */
		stop = !inflow->flowing || inflow->closed;
		for (index = 0; index < count && !stop && !failed; index++)
			failed = read_events(inflow, ready[index].data.ptr, 1);
		before = inflow->owed_count;
		if (!stop && !failed)
			failed = take_owed(inflow, &batch);
		code = unlock_after(inflow, failed);
		if (code || stop || (count <= 0 && !before))
			return code;
		code = answer_batch(inflow, link, &batch, data);
		pause_ms = inflow->owed_count < before ? 0 : 1; /* some have to wait for an event of their process */
	}
	return code;
}

struct window *lifeboat_window(unsigned char *data, unsigned char *packed)
{
	struct window *window = calloc(1, sizeof(*window));

	if (window) {
		window->data = data;
		window->packed = packed;
	}
	return window;
}

/* Write how many bytes are to be unpacked, and to how many. */
void lifeboat_window_packed(const struct window *window, uint64_t *sizes)
{
	sizes[0] = window->answer.packed_bytes;
	sizes[1] = window->answer.kept_bytes;
}

static void end_request(struct inflow *inflow, struct window *window)
{
	lock_patiently(inflow);
	window->wanted[0].space->under_way--;
	unlock(inflow);
	window->count--;
	memmove(window->wanted, window->wanted + 1, window->count * sizeof(*window->wanted));
}

/* Nothing of what is under way will come; the next pass asks for it. */
void lifeboat_window_end(struct inflow *inflow, struct window *window)
{
	while (window->count)
		end_request(inflow, window);
	window->unpacked = 0;
}

static int ask_more(struct inflow *inflow, struct link *link, struct window *window)
{
	while (window->count < BULK_UNDER_WAY) {
		struct wanted *next = window->wanted + window->count;
		size_t index;
		int found = 0;

		lock_patiently(inflow);
		for (index = 0; index < inflow->count && !found; index++)
			if (!inflow->spaces[index]->gone)
				found = space_next(inflow->spaces[index], BULK_BYTES, next);
		if (found > 0)
			next->space->under_way++;
		if (unlock_after(inflow, found < 0 || inflow->failed))
			return LOST;
		if (!found)
			break;
		window->count++;
		if (ask(link, next))
			return BROKEN_LINK;
	}
	return NOTHING;
}

/* Receive which parts of a range the source holds. */
static int receive_held(struct inflow *inflow, struct link *link, const struct wanted *wanted)
{
	struct head head;
	uint64_t *held, before = wanted->part.origin, end = before + wanted->part.end - wanted->part.start;
	size_t index, count;
	int code = NOTHING;

	if (lifeboat_receive(link, (unsigned char *)&head, sizeof(head)))
		return BROKEN_LINK;
	if (head.length > LONGEST_BYTES || head.length % (2 * sizeof(*held)))
		return bad_answer();
	held = malloc(head.length + 1);
	if (!held)
		return lost();
	count = head.length / (2 * sizeof(*held));
	if (head.length && lifeboat_receive(link, (unsigned char *)held, head.length))
		code = BROKEN_LINK;
	for (index = 0; index < 2 * count && !code; index++) {
		if (held[index] < before || held[index] > end || held[index] % PAGE)
			code = bad_answer();
		before = held[index];
	}
	if (!code) {
		lock_patiently(inflow);
		code = unlock_after(inflow, space_narrow(wanted->space, wanted->part, held, count));
	}
	free(held);
	return code;
}

/*
 * Fetch all that is missing on a link of the bulk, until there is nothing to ask for and nothing under way, or an
 * answer has to be unpacked.
 */
int lifeboat_inflow_fetch(struct inflow *inflow, struct link *link, struct window *window)
{
	struct wanted *first = window->wanted;
	int code;

	for (;;) {
		if (!window->unpacked) {
			code = ask_more(inflow, link, window);
			if (code || !window->count)
				return code;
			if (first->held) {
				code = receive_held(inflow, link, first);
				if (code)
					return code;
				end_request(inflow, window);
				continue;
			}
			code = receive(link, first, &window->answer, window->data, window->packed);
			window->unpacked = code == UNPACK;
			if (code)
				return code;
		}
		window->unpacked = 0;
		code = fill(inflow, first, &window->answer);
		if (code)
			return code;
		end_request(inflow, window);
	}
}
