/*
 * Three things CRIU does while a container stands still, done faster with the same result.
 *
 * Preloaded by migrator/runtime/hasten.py, which says why. What is not understood goes on as it is.
 *
 * - conntrack: a dump walks the kernel's whole table, twice (criu/net.c, dump_nf_ct), whoever its entries
 *   belong to. In a network namespace that has none, the answer is given here.
 * - empty tmpfs: each is packed and unpacked by tar and gzip (criu/filesystems.c, tmpfs_dump). One that is
 *   empty and cannot be written to is answered with, and recognised as, an empty archive.
 * - mappings: /proc/PID/smaps makes the kernel count every page; CRIU wants only the flags (criu/proc_parse.c,
 *   parse_smaps). Where LIFEBOAT_MAPPINGS has a file named PID, that is read instead.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
