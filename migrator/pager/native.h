/* What the files of the pager's C part know of each other. Formats are those of packing.py and greeting.py. */
#ifndef LIFEBOAT_NATIVE_H
#define LIFEBOAT_NATIVE_H
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the formats are little endian; Python does it right, slower"
#endif

#define PAGE 4096
#define MOST_PAGES 1024 /* of an answer */
#define WHOLE 0xFFFF /* kinds of pages: it follows */
#define ZERO 0xFFFE /* nothing but zeros */
#define BAD 0xFFFD /* it could not be read at the source; all smaller numbers: the same as that page */
#define PLAIN 0 /* forms of answers */
#define COMPRESSED 1
#define ASK_PAGES 1 /* kinds of requests */
#define ASK_HELD 2

struct __attribute__((packed)) request {
	uint32_t kind, pid;
	uint64_t address, length;
};

struct __attribute__((packed)) head {
	uint32_t length;
	uint16_t form, unused;
};

struct link;

/* Seconds of a clock that only goes forward. */
static inline double lifeboat_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Keep a sentence about what failed, from OpenSSL's queue of errors or errno, for `lifeboat_reason`. */
void lifeboat_note(const char *what);
int lifeboat_receive(struct link *link, unsigned char *into, size_t length);
int lifeboat_send(struct link *link, const unsigned char *data, size_t length);
long lifeboat_pack(unsigned char *data, long pages, uint16_t *kinds);

#endif
