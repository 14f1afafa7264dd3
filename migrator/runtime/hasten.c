/*
 * Four things CRIU does while a container stands still, done faster with the same result.
 *
 * Preloaded by migrator/runtime/hasten.py, which says why. What is not understood goes on as it is.
 *
 * - conntrack: a dump walks the kernel's whole table, twice (criu/net.c, dump_nf_ct), whoever its entries
 *   belong to. In a network namespace that has none, the answer is given here.
 * - empty tmpfs: each is packed and unpacked by tar and gzip (criu/filesystems.c, tmpfs_dump). One that is
 *   empty and cannot be written to is answered with, and recognised as, an empty archive.
 * - mappings: /proc/PID/smaps makes the kernel count every page; CRIU wants only the flags (criu/proc_parse.c,
 *   parse_smaps). Where LIFEBOAT_MAPPINGS has a file named PID, that is read instead.
 * - page lists: a lazy dump copies a table with room for every page of the container, 4 MiB per GiB, nearly all of
 *   it untouched, into shared memory (criu/mem.c, __parasite_dump_pages_seized). Zeros are left out of a long copy.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TABLE_OF_CONNECTIONS (1 << 8 | 1) /* linux/netfilter/nfnetlink*.h: subsystem and IPCTNL_MSG_CT_GET */
#define TABLE_OF_EXPECTATIONS (2 << 8 | 1) /* ... and IPCTNL_MSG_EXP_GET */

static int answered = -1; /* the socket whose question was answered here */
static unsigned int sequence;

static int no_connections(void)
{
	char text[32] = "";
	int fd = syscall(SYS_openat, AT_FDCWD, "/proc/sys/net/netfilter/nf_conntrack_count", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return length > 0 && !strcmp(text, "0\n");
}

static int is_netfilter(int fd)
{
	int domain = 0, protocol = -1;
	socklen_t size = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_NETLINK &&
	       !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) && protocol == NETLINK_NETFILTER;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	const struct nlmsghdr *head = message->msg_iovlen == 1 ? message->msg_iov->iov_base : NULL;

	if (head && message->msg_iov->iov_len >= sizeof(*head) && head->nlmsg_len == message->msg_iov->iov_len &&
	    (head->nlmsg_type == TABLE_OF_CONNECTIONS || head->nlmsg_type == TABLE_OF_EXPECTATIONS) &&
	    (head->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP && is_netfilter(fd) && no_connections()) {
		answered = fd;
		sequence = head->nlmsg_seq;
		return head->nlmsg_len;
	}
	return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	struct {
		struct nlmsghdr head;
		int error;
	} end = { { sizeof(end), NLMSG_DONE, NLM_F_MULTI, sequence, 0 }, 0 };

	if (fd != answered || fd < 0 || message->msg_iovlen != 1 || message->msg_iov->iov_len < sizeof(end))
		return syscall(SYS_recvmsg, fd, message, flags);
	answered = -1;
	memcpy(message->msg_iov->iov_base, &end, sizeof(end));
	return sizeof(end);
}

/* gzip(1) of tar(1)'s empty archive, 10240 zeros. */
static const unsigned char nothing[] = {
	0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xed, 0xc1, 0x01, 0x0d, 0x00,
	0x00, 0x00, 0xc2, 0xa0, 0xf7, 0x4f, 0x6d, 0x0e, 0x37, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x80, 0x37, 0x03, 0x9a, 0xde, 0x1d, 0x27, 0x00, 0x28, 0x00, 0x00,
};

/* An empty directory, untouched since it was mounted, on a file system that cannot be written to. */
static int is_nothing(int directory)
{
	struct stat status;
	struct statvfs mount;
	const struct dirent *entry;
	int copy, empty = 1;
	DIR *listed;

	if (fstat(directory, &status) || !S_ISDIR(status.st_mode) || fstatvfs(directory, &mount) ||
	    !(mount.f_flag & ST_RDONLY) || status.st_mtim.tv_sec != status.st_ctim.tv_sec ||
	    status.st_mtim.tv_nsec != status.st_ctim.tv_nsec)
		return 0;
	copy = syscall(SYS_openat, directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	listed = copy < 0 ? NULL : fdopendir(copy);
	if (!listed)
		return 0;
	while (empty && (entry = readdir(listed)))
		empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
	closedir(listed);
	return empty;
}

static int is_archive_of_nothing(int fd)
{
	unsigned char found[sizeof(nothing) + 1];
	off_t at = lseek(fd, 0, SEEK_CUR);

	return at >= 0 && pread(fd, found, sizeof(found), at) == sizeof(nothing) &&
	       !memcmp(found, nothing, sizeof(nothing));
}

int execvp(const char *file, char *const argv[])
{
	int (*next)(const char *, char *const[]);

	if (!strcmp(file, "tar") && argv[0] && argv[1] && !strcmp(argv[1], "--create") && is_nothing(0))
		_exit(write(1, nothing, sizeof(nothing)) != sizeof(nothing));
	if (!strcmp(file, "tar") && argv[0] && argv[1] && !strcmp(argv[1], "--extract") && is_archive_of_nothing(0))
		_exit(0);
	next = (int (*)(const char *, char *const[]))dlsym(RTLD_NEXT, "execvp");
	return next(file, argv);
}

/* The file that stands for "smaps" of an open /proc/PID, or -1. */
static int open_mappings(int directory)
{
	const char *from = getenv("LIFEBOAT_MAPPINGS");
	char name[64], process[64], path[4096];
	ssize_t length;

	if (!from)
		return -1;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", directory);
	length = readlink(name, process, sizeof(process) - 1);
	if (length <= 0)
		return -1;
	process[length] = '\0';
	if (strncmp(process, "/proc/", 6) || strchr(process + 6, '/') ||
	    snprintf(path, sizeof(path), "%s/%s", from, process + 6) >= (int)sizeof(path))
		return -1;
	return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

int openat64(int directory, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list rest;
	int found;

	if (flags & (O_CREAT | __O_TMPFILE)) {
		va_start(rest, flags);
		mode = va_arg(rest, mode_t);
		va_end(rest);
	}
	if (!strcmp(path, "smaps") && (flags & O_ACCMODE) == O_RDONLY && (found = open_mappings(directory)) >= 0)
		return found;
	return syscall(SYS_openat, directory, path, flags | O_LARGEFILE, mode);
}

#define LONG (1 << 20) /* bytes of a copy from which it is worth a look: a quarter of a millisecond */
#define RUN 64 /* untouched pages in a row that are left out */
#define HELD (3ULL << 62) /* present or swapped; Documentation/admin-guide/mm/pagemap.rst */

/* Whether all of this lies in one private mapping of no file: what is untouched of such is zeros. */
static int is_private(uintptr_t start, uintptr_t end)
{
	unsigned long from, to, inode;
	char sharing, line[512];
	int found = 0;
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx %*3c%c %*x %*x:%*x %lu", &from, &to, &sharing, &inode) == 4 &&
			from <= start && end <= to && sharing == 'p' && inode == 0;
	if (maps)
		fclose(maps);
	return found;
}

/* Make this zeros, by giving its whole pages back where they are shared memory; zeros are also what `from` has. */
static void clear(char *to, const char *from, size_t size, size_t page)
{
	size_t head = -(uintptr_t)to % page, whole = size > head ? (size - head) / page * page : 0;

	if (!whole || madvise(to + head, whole, MADV_REMOVE)) {
		memmove(to, from, size);
		return;
	}
	memmove(to, from, head);
	memmove(to + head + whole, from + head + whole, size - head - whole);
}

/* Copy from page to page of the source; a run ends where `held` changes. Return how much was done. */
static size_t copy_held(char *to, const char *from, size_t size, int pagemap)
{
	size_t page = sysconf(_SC_PAGESIZE), done = 0;
	uint64_t entries[512];

	while (done < size) {
		uintptr_t first = ((uintptr_t)from + done) / page;
		ssize_t count = pread(pagemap, entries, sizeof(entries), first * sizeof(*entries)), at, end;

		count /= (ssize_t)sizeof(*entries);
		if (count <= 0)
			break;
		for (at = 0; at < count && done < size; at = end) {
			size_t length;

			for (end = at + 1; end < count && !(entries[end] & HELD) == !(entries[at] & HELD);)
				end++;
			length = (first + end) * page - ((uintptr_t)from + done);
			if (length > size - done)
				length = size - done;
			if (entries[at] & HELD || end - at < RUN)
				memmove(to + done, from + done, length);
			else
				clear(to + done, from + done, length, page);
			done += length;
		}
	}
	return done;
}

void *memcpy(void *to, const void *from, size_t size)
{
	size_t done = 0;
	int pagemap;

	if (size >= LONG && is_private((uintptr_t)from, (uintptr_t)from + size)) {
		pagemap = syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		if (pagemap >= 0) {
			done = copy_held(to, from, size, pagemap);
			close(pagemap);
		}
	}
	memmove((char *)to + done, (const char *)from + done, size - done);
	return to;
}
