/*
 * prlimit(2) for a root that lacks CAP_SYS_RESOURCE, preloaded into CRIU of the lab's hosts.
 *
 * Reading the limits of a process of another user needs that capability; reading them from
 * /proc/PID/limits (proc_pid_limits(5)) does not, and gives the same numbers. Setting stays refused.
 * CRIU asks by syscall(2) (dump_task_rlimits, criu/cr-dump.c).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const NAMES[] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static rlim64_t limit(const char *text)
{
	return strcmp(text, "unlimited") ? strtoull(text, NULL, 10) : RLIM64_INFINITY;
}

static int from_proc(pid_t pid, unsigned resource, struct rlimit64 *old)
{
	char path[64], line[256], soft[32], hard[32];
	size_t length;
	int found = -1;
	FILE *file;

	if (resource >= sizeof(NAMES) / sizeof(NAMES[0]))
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	file = fopen(path, "re");
	if (!file)
		return -1;
	length = strlen(NAMES[resource]);
	while (found && fgets(line, sizeof(line), file)) {
		if (strncmp(line, NAMES[resource], length) || line[length] != ' ')
			continue;
		if (sscanf(line + length, "%31s %31s", soft, hard) == 2) {
			old->rlim_cur = limit(soft);
			old->rlim_max = limit(hard);
			found = 0;
		}
	}
	fclose(file);
	return found;
}

long syscall(long number, ...)
{
	static long (*next)(long, ...);
	long status, word[6];
	va_list rest;
	int i;

	va_start(rest, number);
	for (i = 0; i < 6; i++)
		word[i] = va_arg(rest, long);
	va_end(rest);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "syscall");
	status = next(number, word[0], word[1], word[2], word[3], word[4], word[5]);
	if (status != -1 || errno != EPERM || number != SYS_prlimit64 || word[2] || !word[3])
		return status;
	if (!from_proc(word[0], word[1], (struct rlimit64 *)word[3]))
		return 0;
	errno = EPERM;
	return -1;
}
