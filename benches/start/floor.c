// The floor of one container start: the kernel calls that cannot be left out, made by a program that does nothing else.
// Reads no configuration, keeps no state, checks little: what a runtime takes above it is what the runtime costs.
//
// usage: floor ROOTFS CGROUP    runs ROOTFS/bin/true in namespaces and cgroups of its own and removes the cgroups
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *V1[] = {"blkio", "cpu",     "cpuacct", "cpuset",     "devices", "freezer",
                           "hugetlb", "memory", "net_cls", "perf_event", "pids",    0};
static const char *MASKED_FILES[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", 0};
static const char *MASKED_DIRS[] = {"/proc/acpi", "/proc/scsi", "/sys/firmware", 0};
static const char *READ_ONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", 0};

static const char *ALLOWED[] = {"c *:* m",    "b *:* m",    "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm",  "c 1:8 rwm",
                                "c 1:9 rwm",  "c 5:0 rwm",  "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", 0};

static void must(long answer, const char *what) {
    if (answer < 0) {
        perror(what);
        _exit(1);
    }
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd, path);
    must(write(fd, text, strlen(text)), path);
    close(fd);
}

static char *path(char *out, const char *hierarchy, const char *group, const char *file) {
    snprintf(out, 4096, "/sys/fs/cgroup%s%s%s%s", hierarchy, group, *file ? "/" : "", file);
    return out;
}

// The hierarchy's directory: "/memory", "/unified", or "" where all is one v2 tree.
static int each(char names[16][32]) {
    int count = 0;
    char at[64];
    for (int i = 0; V1[i]; i++) {
        snprintf(at, sizeof at, "/sys/fs/cgroup/%s/tasks", V1[i]);
        if (access(at, F_OK) == 0)
            snprintf(names[count++], 32, "/%s", V1[i]);
    }
    return count;
}

static void inside(const char *root, int doors[], int count) {
    for (int i = 0; i < count; i++)
        must(write(doors[i], "0", 1), "tasks");
    must(unshare(CLONE_NEWCGROUP), "unshare");
    must(mount(0, "/", 0, MS_REC | MS_SLAVE, 0), "slave");
    must(mount(root, root, 0, MS_BIND | MS_REC, 0), "bind");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", 0, 0), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
    mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "pts");
    must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"), "shm");
    must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0), "mqueue");
    must(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0), "sys");
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    for (int i = 0; i < 6; i++) {
        must(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), "mknod");
        must(chmod(nodes[i].name, 0666), "chmod");
    }
    must(symlink("/proc/self/fd", "dev/fd") | symlink("/proc/self/fd/0", "dev/stdin") | symlink("/proc/self/fd/1", "dev/stdout") |
             symlink("/proc/self/fd/2", "dev/stderr") | symlink("pts/ptmx", "dev/ptmx"), "symlink");
    must(sethostname("box", 3), "hostname");
    for (int i = 0; READ_ONLY[i]; i++)
        if (mount(READ_ONLY[i] + 1, READ_ONLY[i] + 1, 0, MS_BIND | MS_REC, 0) == 0)
            must(mount(0, READ_ONLY[i] + 1, 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), READ_ONLY[i]);
    for (int i = 0; MASKED_FILES[i]; i++)
        if (mount("dev/null", MASKED_FILES[i] + 1, 0, MS_BIND, 0) < 0 && errno != ENOENT)
            must(-1, MASKED_FILES[i]);
    for (int i = 0; MASKED_DIRS[i]; i++)
        if (mount("tmpfs", MASKED_DIRS[i] + 1, "tmpfs", MS_RDONLY, "size=0") < 0 && errno != ENOENT)
            must(-1, MASKED_DIRS[i]);
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "chdir /");
    must(setsid(), "setsid");
    for (int cap = 0; cap <= 40; cap++)
        if (cap != 5 && cap != 10 && cap != 29)
            prctl(PR_CAPBSET_DROP, cap);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    execl("/bin/true", "true", (char *)0);
    must(-1, "exec");
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const char *root = argv[1], *group = argv[2];
    char names[16][32], at[4096], v2[4096];
    int count = each(names), doors[16], pidfd = -1;
    path(v2, count ? "/unified" : "", group, "");
    must(mkdir(v2, 0755), v2);
    for (int i = 0; i < count; i++) {
        must(mkdir(path(at, names[i], group, ""), 0755), at);
        if (strcmp(names[i], "/cpuset") == 0) {
            put(path(at, names[i], group, "cpuset.cpus"), "0");
            put(path(at, names[i], group, "cpuset.mems"), "0");
        }
        if (strcmp(names[i], "/memory") == 0)
            put(path(at, names[i], group, "memory.limit_in_bytes"), "268435456");
        if (strcmp(names[i], "/pids") == 0)
            put(path(at, names[i], group, "pids.max"), "100");
        if (strcmp(names[i], "/devices") == 0) {
            put(path(at, names[i], group, "devices.deny"), "a");
            for (int n = 0; ALLOWED[n]; n++)
                put(path(at, names[i], group, "devices.allow"), ALLOWED[n]);
        }
        doors[i] = open(path(at, names[i], group, "tasks"), O_WRONLY | O_CLOEXEC);
        must(doors[i], at);
    }
    if (count == 0) {
        put(path(at, "", group, "memory.max"), "268435456");
        put(path(at, "", group, "pids.max"), "100");
    }
    int cgroup = open(v2, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct clone_args args = {.flags = CLONE_PIDFD | CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC |
                                       CLONE_NEWPID | CLONE_NEWNET,
                              .pidfd = (unsigned long)&pidfd, .exit_signal = SIGCHLD, .cgroup = cgroup};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    must(pid, "clone3");
    if (pid == 0)
        inside(root, doors, count);
    int status;
    must(waitpid(pid, &status, 0), "wait");
    for (int i = 0; i < count; i++)
        must(rmdir(path(at, names[i], group, "")), at);
    must(rmdir(v2), v2);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
