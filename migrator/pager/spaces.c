/*
 * See spaces.h. While a process changes its mappings and its event is not read yet, filling fails with EAGAIN; so
 * under one lock for events and filling no page is ever put where the process has given it away (userfaultfd(2)).
 */
#include "spaces.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COARSE_BYTES (1 << 20) /* as in space.py */
#define HELD_BYTES (128 << 20)
#ifndef UFFDIO_POISON /* Linux 6.6; older headers build, too */
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_zeropage) /* struct uffdio_poison looks the same */
#endif

struct space *space_of(uint32_t pid, int userfault, const uint64_t *ranges, size_t count)
{
	struct space *space = calloc(1, sizeof(*space));
	size_t index;
	int failed = !space;

	for (index = 0; index < count && !failed; index++) {
		struct range item = { ranges[2 * index], ranges[2 * index + 1], ranges[2 * index] };

		failed = pending_add(&space->pending, item);
		if (item.end - item.start > COARSE_BYTES)
			failed |= pending_add(&space->coarse, item);
	}
	if (failed)
		return NULL; /* the drain is lost, and the program with it */
	space->pid = pid;
	space->userfault = userfault;
	return space;
}

struct space *space_child(const struct space *parent, int userfault)
{
	struct space *space = calloc(1, sizeof(*space));

	if (!space || pending_copy(&space->pending, &parent->pending) || pending_copy(&space->coarse, &parent->coarse))
		return NULL;
	space->pid = parent->pid;
	space->userfault = userfault;
	space->cursor = parent->cursor;
	return space;
}

static int moved(struct space *space, uint64_t from, uint64_t to, uint64_t length)
{
	return pending_move(&space->pending, from, to, length) || pending_move(&space->coarse, from, to, length) ||
		       pending_move(&space->asked, from, to, length) ?
		       FAILED :
		       FOLLOWED;
}

static int gave_away(struct space *space, uint64_t start, uint64_t end)
{
	return pending_drop(&space->pending, start, end) || pending_drop(&space->coarse, start, end) ||
		       pending_drop(&space->asked, start, end) ?
		       FAILED :
		       FOLLOWED;
}

int space_read_event(struct space *space, uint64_t *value)
{
	struct uffd_msg event;
	ssize_t count = read(space->userfault, &event, sizeof(event));

	if (count < 0)
		return errno == EAGAIN || errno == EINTR ? NO_EVENT : FAILED;
	if (count != sizeof(event)) {
		errno = EPROTO;
		return FAILED;
	}
	switch (event.event) {
	case UFFD_EVENT_PAGEFAULT:
		*value = event.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
		return FAULT;
	case UFFD_EVENT_FORK:
		*value = event.arg.fork.ufd;
		return FORKED;
	case UFFD_EVENT_REMAP:
		return moved(space, event.arg.remap.from, event.arg.remap.to, event.arg.remap.len);
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return gave_away(space, event.arg.remove.start, event.arg.remove.end);
	}
	errno = EPROTO;
	return FAILED;
}

int space_next(struct space *space, uint64_t bulk_bytes, struct wanted *next)
{
	struct range part, coarse;
	int held = 0;

	if (!space->asked.count) {
		if (space->under_way || !space->pending.count)
			return 0;
		pending_free(&space->asked);
		if (pending_copy(&space->asked, &space->pending))
			return FAILED;
	}
	pending_next(&space->asked, space->cursor, bulk_bytes, &part);
	if (pending_find(&space->coarse, part.start, part.start + HELD_BYTES, &coarse)) {
		held = coarse.start == part.start;
		if (held)
			part = coarse;
		else if (coarse.start < part.end)
			part.end = coarse.start;
	}
	if (pending_drop(&space->asked, part.start, part.end))
		return FAILED;
	if (!held)
		space->cursor = part.end;
	*next = (struct wanted){ space, part, held };
	return 1;
}

int space_narrow(struct space *space, struct range part, const uint64_t *held, size_t count)
{
	uint64_t at = part.start;
	struct range item;

	if (pending_drop(&space->coarse, part.start, part.end) ||
	    pending_narrow(&space->pending, part.origin, part.origin + part.end - part.start, held, count))
		return FAILED;
	for (; pending_find(&space->pending, at, part.end, &item); at = item.end)
		if (pending_add(&space->asked, item))
			return FAILED;
	return 0;
}

static void lose_process(struct space *space)
{
	space->gone = 1;
	epoll_ctl(space->events, EPOLL_CTL_DEL, space->userfault, NULL); /* the guard holds it, too: it stays open */
	close(space->userfault);
}

static void wake(struct space *space, uint64_t address)
{
	struct uffdio_range range = { address, PAGE };

	ioctl(space->userfault, UFFDIO_WAKE, &range);
}

/* Ask the kernel once; return the bytes that are there now, or 0 and an error number in `errno`. */
static int64_t put_once(struct space *space, uint64_t target, uint64_t length, int place, const unsigned char *data)
{
	struct uffdio_copy copy = { .dst = target, .src = (uintptr_t)data, .len = length };
	struct uffdio_zeropage fill = { .range = { target, length } };
	int code;

	if (place >= 0) {
		code = ioctl(space->userfault, UFFDIO_COPY, &copy);
		return copy.copy > 0 ? copy.copy : code ? 0 : (int64_t)length;
	}
	if (place == NO_PLACE_ZERO)
		code = ioctl(space->userfault, UFFDIO_ZEROPAGE, &fill);
	else
		code = ioctl(space->userfault, UFFDIO_POISON, &fill);
	return fill.zeropage > 0 ? fill.zeropage : code ? 0 : (int64_t)length;
}

/*
 * Say whether the process is changing no mappings, so that no event is on its way to us: asked for write protection the
 * kernel says EAGAIN while it is, before it looks for a mapping, and ENOENT, having done nothing, where none has any
 * (mm/userfaultfd.c, mwriteprotect_range; Linux 5.7).
 */
static int stands_still(struct space *space, uint64_t address)
{
	struct uffdio_writeprotect nothing = { .range = { address, PAGE } };

	return ioctl(space->userfault, UFFDIO_WRITEPROTECT, &nothing) && errno == ENOENT;
}

/*
 * Fill a run of pages of one sort; return the bytes that are there now, or FAILED. That is less than all when the
 * process is changing its mappings, or has exited. A page that is mapped nowhere, and of which no event will tell,
 * counts, too: a child has none of what its parent keeps from it (MADV_DONTFORK).
 */
static int64_t put(struct space *space, uint64_t target, uint64_t length, int place, const unsigned char *data)
{
	uint64_t done = 0, part = length;

	while (done < length) {
		int64_t count = put_once(space, target + done, part, place, data + done);
		int code = count > 0 ? 0 : errno;

		if (code == ENOENT && part > PAGE) {
			part = part / 2 / PAGE * PAGE; /* one step must not cross from a mapping to another */
			continue;
		}
		if (code == EEXIST)
			wake(space, target + done);
		if (code == EEXIST || (code == ENOENT && stands_still(space, target + done)))
			count = PAGE;
		if (code == ESRCH)
			lose_process(space);
		if (count <= 0)
			return code == ESRCH || code == EAGAIN || code == ENOENT ? (int64_t)done : FAILED;
		done += count;
		part = length - done;
	}
	return done;
}

/* How many pages from `page` on, before `last`, are one run. */
static long run_of(const struct answer *answer, long page, long last)
{
	long next = page + 1;

	while (next < last) {
		int32_t before = answer->place[next - 1], here = answer->place[next];

		if (before < 0 ? here != before : here != before + 1)
			break;
		next++;
	}
	return next - page;
}

int space_fill(struct space *space, struct range part, const struct answer *answer, long first, long last,
	       struct counts *counts)
{
	uint64_t at = part.start + first * PAGE, end = part.start + last * PAGE;
	struct range missing;

	while (!space->gone && at < end && pending_find(&space->pending, at, end, &missing)) {
		long page = (missing.start - part.start) / PAGE, run;
		int32_t place = answer->place[page];
		int64_t done;

		at = missing.end;
		if (missing.start - missing.origin != part.start - part.origin)
			continue; /* moved here from elsewhere since we asked */
		run = run_of(answer, page, (missing.end - part.start) / PAGE);
		done = put(space, missing.start, run * PAGE, place,
			   answer->data + (place < 0 ? 0 : (size_t)place * PAGE));
		if (done < 0 || pending_drop(&space->pending, missing.start, missing.start + done))
			return FAILED;
		counts->received += done;
		*(place == NO_PLACE_ZERO ? &counts->zero : &counts->poisoned) += place < 0 ? done : 0;
		if (done < run * PAGE)
			return 0; /* events must be read first */
		at = missing.start + done;
	}
	return 0;
}

int space_give_zero(struct space *space, uint64_t address)
{
	if (put_once(space, address, PAGE, NO_PLACE_ZERO, NULL) > 0)
		return 1;
	if (errno == EEXIST || errno == ENOENT) /* gone from there: it shall get what it would have got at home */
		wake(space, address);
	else if (errno == ESRCH)
		lose_process(space);
	else
		return errno == EAGAIN ? 0 : FAILED;
	return 1;
}

int space_poison(struct space *space, uint64_t *poisoned)
{
	uint64_t at = 0;
	struct range missing;

	while (!space->gone && pending_find(&space->pending, at, UINT64_MAX, &missing)) {
		int64_t done = put(space, missing.start, missing.end - missing.start, NO_PLACE_BAD, NULL);

		if (done < 0 || pending_drop(&space->pending, missing.start, missing.start + done))
			return FAILED;
		*poisoned += done;
		at = missing.end;
	}
	return 0;
}
