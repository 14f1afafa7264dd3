/* One restored address space: space.py and userfault.py in C. Whoever calls holds the lock of the inflow. */
#ifndef LIFEBOAT_SPACES_H
#define LIFEBOAT_SPACES_H
#include "native.h"
#include "pending.h"

#define FAILED (-1) /* no memory, or the kernel said what it should never say: the drain is lost; `errno` says why */

struct counts {
	uint64_t received, wire, zero, poisoned;
};

struct space {
	uint32_t pid; /* by which the source knows its memory */
	int userfault;
	struct pending pending; /* has not come */
	struct pending coarse; /* of that, what the source may not hold */
	struct pending asked; /* of that, what this pass of the bulk has still to ask for */
	int under_way; /* requests of the bulk */
	uint64_t cursor; /* where the bulk goes on: behind the last fault */
	int events; /* the epoll that waits for its events */
	int gone; /* the process has exited, or its userfaultfd was given away */
};

/* What was asked for. */
struct wanted {
	struct space *space;
	struct range part;
	int held; /* whether it asks what the source holds, not for pages */
};

/* An answer: where each page lies in `data`, or one of these. */
#define NO_PLACE_ZERO (-1)
#define NO_PLACE_BAD (-2)
struct answer {
	long pages;
	uint64_t wire; /* its bytes on the link */
	uint64_t packed_bytes, kept_bytes; /* of its contents, as they came and as they are */
	int32_t place[MOST_PAGES];
	const unsigned char *data;
};

/* `ranges` are `count` pairs; NULL when there is no memory. */
struct space *space_of(uint32_t pid, int userfault, const uint64_t *ranges, size_t count);
struct space *space_child(const struct space *parent, int userfault);

/* Read the next event; follow it. */
enum event { NO_EVENT, FAULT, FORKED, FOLLOWED };
/* `*value` is a fault's address, or a child's userfaultfd. */
int space_read_event(struct space *space, uint64_t *value);

/* See Space.next_range: 1 and `*next` filled, 0 when there is nothing to ask for, or FAILED. */
int space_next(struct space *space, uint64_t bulk_bytes, struct wanted *next);
int space_narrow(struct space *space, struct range part, const uint64_t *held, size_t count);
/* Fill what is still missing of an answer's pages from `first` to before `last`. */
int space_fill(struct space *space, struct range part, const struct answer *answer, long first, long last,
	       struct counts *counts);
/* Answer a fault on a page the process never had, or has by now: 1, or 0 when there are events to read first. */
int space_give_zero(struct space *space, uint64_t address);
/* Let nobody ever read what is missing. */
int space_poison(struct space *space, uint64_t *poisoned);

#endif
