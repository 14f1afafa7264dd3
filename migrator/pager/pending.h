/* The pages of one address space that have not come yet: pending.py in C. Not safe for several threads. */
#ifndef LIFEBOAT_PENDING_H
#define LIFEBOAT_PENDING_H
#include <stddef.h>
#include <stdint.h>

#define SMALL_HOLE_BYTES (64 << 10) /* as in pending.py */

/* Missing memory: addresses here, and the address at the source of its first byte. */
struct range {
	uint64_t start, end, origin;
};

/* Disjoint ranges in order of address. Functions that may need memory return -1 when there is none. */
struct pending {
	struct range *at;
	size_t count, room;
	uint64_t bytes;
};

void pending_free(struct pending *known);
int pending_copy(struct pending *into, const struct pending *from);
/* The first missing part within a range, clipped to it; returns 0 when nothing is missing there. */
int pending_find(const struct pending *known, uint64_t start, uint64_t end, struct range *found);
/* See Pending.next; returns 0 when nothing is missing at all. */
int pending_next(const struct pending *known, uint64_t after, uint64_t limit, struct range *found);
int pending_add(struct pending *known, struct range item);
int pending_drop(struct pending *known, uint64_t start, uint64_t end);
/* `held` are `count` pairs of addresses. */
int pending_narrow(struct pending *known, uint64_t start, uint64_t end, const uint64_t *held, size_t count);
int pending_move(struct pending *known, uint64_t source, uint64_t target, uint64_t length);

#endif
