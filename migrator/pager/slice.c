/*
 * The bulk's manners: who wakes up beside it, such as the process whose page has just come, may run at once. Since Linux
 * 6.12 a thread may ask for slices of its own length, and one that wakes up with shorter ones does not have to wait for
 * the end of a longer one (kernel/sched/fair.c, PREEMPT_SHORT). The thread's share of the processor stays what it was;
 * older kernels ignore the wish.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 100000000 /* the longest there is (kernel/sched/syscalls.c, __setparam_fair); the usual: some ms */

struct attributes { /* struct sched_attr, include/uapi/linux/sched/types.h */
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* For the calling thread, whose policy becomes SCHED_OTHER with niceness 0; returns 0 when the kernel took it. */
int lifeboat_long_slices(void)
{
	struct attributes wanted = { .size = sizeof(wanted), .runtime = SLICE_NS };

	return (int)syscall(SYS_sched_setattr, 0, &wanted, 0);
}
