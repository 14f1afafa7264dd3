/*
 * ioctl(2) for the CRIU that dumps a container: PAGEMAP_SCAN finds nothing in the spared ranges.
 *
 * Preloaded by migrator/pager/spare.py, which says why. The ranges are read from the file that
 * LIFEBOAT_SPARE names, lines of `PID START END` (decimal, hexadecimal twice) in order of address for each
 * pid. Every part that was passed over is written to the file that LIFEBOAT_SPARED names, in the same form,
 * before CRIU hears of it; what cannot be written down is not passed over. Whatever is not understood goes
 * to the kernel as it is.
 *
 * The ABI is that of include/uapi/linux/fs.h (Linux 6.7 and later), Documentation/admin-guide/mm/pagemap.rst.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGEMAP_SCAN 0xC0606610UL /* _IOWR('f', 16, struct pm_scan_arg) */
#define REGION_BYTES 24 /* struct page_region */
#define HELD (1 << 3 | 1 << 4) /* PAGE_IS_PRESENT, PAGE_IS_SWAPPED: what CRIU asks for when it lists pages */

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct range {
	int pid;
	unsigned long start, end;
};

static struct range *ranges;
static size_t count;
static int spared = -1;

static void read_ranges(const char *path)
{
	struct range range, *more;
	FILE *file = fopen(path, "re");

	while (file && fscanf(file, "%d %lx %lx", &range.pid, &range.start, &range.end) == 3) {
		more = realloc(ranges, (count + 1) * sizeof(range));
		if (!more)
			break;
		ranges = more;
		ranges[count++] = range;
	}
	if (file)
		fclose(file);
}

static int begin(void)
{
	static int begun;
	const char *from = getenv("LIFEBOAT_SPARE"), *to = getenv("LIFEBOAT_SPARED");

	if (!begun && from && to) {
		begun = 1;
		spared = open(to, O_WRONLY | O_APPEND | O_CLOEXEC);
		if (spared >= 0)
			read_ranges(from);
	}
	return count > 0;
}

/* The pid of an open /proc/PID/pagemap, 0 of anything else. */
static int pid_of(int fd)
{
	char name[64], path[128];
	const char *end;
	ssize_t length;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, path, sizeof(path) - 1);
	if (length <= 0)
		return 0;
	path[length] = '\0';
	end = strrchr(path, '/');
	if (!end || strcmp(end, "/pagemap"))
		return 0;
	while (end > path && end[-1] != '/')
		end--;
	return atoi(end);
}

static const struct range *first_behind(int pid, unsigned long address)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (ranges[i].pid == pid && ranges[i].end > address)
			return &ranges[i];
	return NULL;
}

static int note(int pid, unsigned long start, unsigned long end)
{
	char line[64];
	int length = snprintf(line, sizeof(line), "%d %lx %lx\n", pid, start, end);

	return write(spared, line, length) == length;
}

/* Scan from gap to gap; the regions found go one behind the other into the caller's vector. */
static long scan(int fd, int pid, struct pm_scan_arg *argument)
{
	unsigned long at = argument->start, until, found = 0;

	while (at < argument->end && found < argument->vec_len) {
		const struct range *range = first_behind(pid, at);
		struct pm_scan_arg part = *argument;
		long status;

		if (range && range->start <= at) {
			until = range->end < argument->end ? range->end : argument->end;
			if (note(pid, at, until)) {
				at = until;
				continue;
			}
			range = NULL;
		}
		part.start = at;
		part.end = range && range->start < argument->end ? range->start : argument->end;
		part.vec += found * REGION_BYTES;
		part.vec_len -= found;
		status = syscall(SYS_ioctl, fd, PAGEMAP_SCAN, &part);
		if (status < 0)
			return status;
		found += status;
		at = part.walk_end;
		if (at < part.end)
			break; /* the vector is full */
	}
	argument->walk_end = at;
	return found;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct pm_scan_arg *argument;
	va_list rest;
	int pid;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	if (request == PAGEMAP_SCAN && argument && argument->size == sizeof(*argument) && argument->vec &&
	    argument->category_anyof_mask == HELD && !argument->max_pages && !argument->flags && begin()) {
		pid = pid_of(fd);
		if (pid && first_behind(pid, argument->start))
			return scan(fd, pid, argument);
	}
	return syscall(SYS_ioctl, fd, request, argument);
}
