/*
 * The page source's usual work, without Python's lock: a request for pages, and an answer of pages as they are. All
 * else is handed back: what the source holds, memory that cannot be read, compression, nonsense.
 */
#define _GNU_SOURCE
#include "native.h"

#include <unistd.h>

struct served {
	uint64_t bytes; /* of memory */
	double seconds; /* from a request's coming to its answer's going */
	struct request unusual; /* the request that is handed back */
};

static int memory_of(const uint32_t *pids, const int *memories, int count, uint32_t pid)
{
	int index;

	for (index = 0; index < count; index++)
		if (pids[index] == pid)
			return memories[index];
	return -1;
}

/* `area` has a page for the head and the kinds, and room for MOST_PAGES. Returns -1 when the link is broken. */
static int answer(struct link *link, unsigned char *area, uint64_t pages)
{
	uint16_t *kinds = (uint16_t *)(area + PAGE) - pages;
	struct head *head = (struct head *)kinds - 1;
	uint64_t kept = (uint64_t)lifeboat_pack(area + PAGE, pages, kinds) * PAGE;

	*head = (struct head){ .length = pages * sizeof(*kinds) + kept, .form = PLAIN };
	return lifeboat_send(link, (unsigned char *)head, sizeof(*head) + head->length);
}

/*
 * Answer at most `most` requests on a link, and count them up in `served`. `pids` and `memories` (open /proc/PID/mem)
 * are of `count` processes. Returns 0, 1 when there is an unusual request, -1 when the link is broken.
 */
int lifeboat_serve(struct link *link, const uint32_t *pids, const int *memories, int count, unsigned char *area,
		   uint64_t most, struct served *served)
{
	for (; most; most--) {
		struct request request;
		int memory;
		double began_at;

		if (lifeboat_receive(link, (unsigned char *)&request, sizeof(request)))
			return -1;
		began_at = lifeboat_now();
		memory = memory_of(pids, memories, count, request.pid);
		if (request.kind != ASK_PAGES || memory < 0 || !request.length || request.length % PAGE ||
		    request.length > MOST_PAGES * PAGE ||
		    pread(memory, area + PAGE, request.length, request.address) != (ssize_t)request.length) {
			served->unusual = request;
			return 1;
		}
		if (answer(link, area, request.length / PAGE))
			return -1;
		served->seconds += lifeboat_now() - began_at;
		served->bytes += request.length;
	}
	return 0;
}
