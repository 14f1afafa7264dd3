/* See pending.h; every function does what the method of that name does in pending.py, and is tested against it. */
#include "pending.h"

#include <stdlib.h>
#include <string.h>

static struct range part_of(struct range item, uint64_t start, uint64_t end)
{
	return (struct range){ start, end, item.origin + start - item.start };
}

static uint64_t higher(uint64_t one, uint64_t other)
{
	return one > other ? one : other;
}

static uint64_t lower(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* The index of the first range that ends behind an address. */
static size_t first_behind(const struct pending *known, uint64_t address)
{
	size_t low = 0, high = known->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (known->at[middle].end > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int make_room(struct pending *known, size_t count)
{
	struct range *at;
	size_t room;

	if (count <= known->room)
		return 0;
	room = count < 16 ? 16 : 2 * count;
	at = realloc(known->at, room * sizeof(*at));
	if (!at)
		return -1;
	known->at = at;
	known->room = room;
	return 0;
}

/* Put `count` ranges in the place of those from index `first` to before `last`. */
static int replace(struct pending *known, size_t first, size_t last, const struct range *by, size_t count)
{
	size_t index;

	if (make_room(known, known->count - (last - first) + count))
		return -1;
	for (index = first; index < last; index++)
		known->bytes -= known->at[index].end - known->at[index].start;
	for (index = 0; index < count; index++)
		known->bytes += by[index].end - by[index].start;
	memmove(known->at + first + count, known->at + last, (known->count - last) * sizeof(*known->at));
	memcpy(known->at + first, by, count * sizeof(*by));
	known->count = known->count - (last - first) + count;
	return 0;
}

void pending_free(struct pending *known)
{
	free(known->at);
	memset(known, 0, sizeof(*known));
}

int pending_copy(struct pending *into, const struct pending *from)
{
	memset(into, 0, sizeof(*into));
	return from->count ? replace(into, 0, 0, from->at, from->count) : 0;
}

int pending_find(const struct pending *known, uint64_t start, uint64_t end, struct range *found)
{
	size_t index = first_behind(known, start);
	struct range item;

	if (start >= end || index == known->count || known->at[index].start >= end)
		return 0;
	item = known->at[index];
	*found = part_of(item, higher(start, item.start), lower(end, item.end));
	return 1;
}

int pending_next(const struct pending *known, uint64_t after, uint64_t limit, struct range *found)
{
	size_t index = first_behind(known, after);
	uint64_t start, end, shift;
	struct range item;

	if (!known->count)
		return 0;
	if (index == known->count)
		index = after = 0;
	item = known->at[index];
	start = higher(item.start, after);
	shift = item.start - item.origin;
	end = lower(item.end, start + limit);
	while (++index < known->count && known->at[index].start < start + limit) {
		item = known->at[index];
		if (item.start - item.origin != shift || item.start - end >= SMALL_HOLE_BYTES)
			break;
		end = lower(item.end, start + limit);
	}
	*found = (struct range){ start, end, start - shift };
	return 1;
}

int pending_add(struct pending *known, struct range item)
{
	size_t index;

	if (pending_drop(known, item.start, item.end))
		return -1;
	index = first_behind(known, item.start);
	return replace(known, index, index, &item, 1);
}

int pending_drop(struct pending *known, uint64_t start, uint64_t end)
{
	size_t first = first_behind(known, start), last = first, count = 0;
	struct range kept[2];

	if (start >= end)
		return 0;
	while (last < known->count && known->at[last].start < end) {
		struct range item = known->at[last++];

		if (item.start < start)
			kept[count++] = part_of(item, item.start, start);
		if (item.end > end)
			kept[count++] = part_of(item, end, item.end);
	}
	return first == last ? 0 : replace(known, first, last, kept, count);
}

static int keep(struct pending *kept, struct range item, uint64_t start, uint64_t end)
{
	struct range part = part_of(item, start, end);

	return start < end ? replace(kept, kept->count, kept->count, &part, 1) : 0;
}

/* The index of the first pair that ends behind an address. */
static size_t held_behind(const uint64_t *held, size_t count, uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (held[2 * middle + 1] > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int pending_narrow(struct pending *known, uint64_t start, uint64_t end, const uint64_t *held, size_t count)
{
	struct pending kept = { 0 };
	size_t number, index;
	int failed = 0;

	for (number = 0; number < known->count && !failed; number++) {
		struct range item = known->at[number];
		uint64_t shift = item.start - item.origin;
		uint64_t first = higher(item.origin, start), last = lower(item.origin + item.end - item.start, end);

		if (first >= last) {
			failed = keep(&kept, item, item.start, item.end);
			continue;
		}
		failed = keep(&kept, item, item.start, first + shift);
		for (index = held_behind(held, count, first); index < count && held[2 * index] < last && !failed; index++)
			failed = keep(&kept, item, higher(held[2 * index], first) + shift,
				      lower(held[2 * index + 1], last) + shift);
		failed |= keep(&kept, item, last + shift, item.end);
	}
	if (failed) {
		pending_free(&kept);
		return -1;
	}
	pending_free(known);
	*known = kept;
	return 0;
}

int pending_move(struct pending *known, uint64_t source, uint64_t target, uint64_t length)
{
	struct pending moved = { 0 };
	struct range item;
	uint64_t at = source;
	int failed = 0;
	size_t index;

	for (; !failed && pending_find(known, at, source + length, &item); at = item.end)
		failed = replace(&moved, moved.count, moved.count, &item, 1);
	failed = failed || pending_drop(known, source, source + length) || pending_drop(known, target, target + length);
	for (index = 0; index < moved.count && !failed; index++) {
		item = moved.at[index];
		failed = pending_add(known, (struct range){ item.start - source + target, item.end - source + target,
							    item.origin });
	}
	pending_free(&moved);
	return failed ? -1 : 0;
}
