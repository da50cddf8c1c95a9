/*
 * The first process of an enclave booted by the `debian` kit: prepares the machine, tells the
 * parent that it lives, runs the measured command in /rootfs, and powers off when that ends.
 *
 * The boot ramdisk holds this program, /modules and, in the twin only, /ca.pem. The application
 * ramdisk holds /cmd (an argument a line), /env (NAME=VALUE a line) and /rootfs.
 *
 * The console gets fixed sentences and numbers, nothing of what the application reads or writes.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/random.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARENT_CID 3                    /* as app/protocol/constants.py has it */
#define HEARTBEAT_PORT 9000             /* aws-nitro-enclaves-cli, enclave_build: "ready" */
#define HEARTBEAT 0xb7
#define WAIT_SECONDS 10
#define MAX_LIST 256                    /* arguments, variables */
#define MAX_TEXT 65536
#define SEED_BYTES 64
#define RNG_CURRENT "/sys/class/misc/hw_random/rng_current"
#define NSM_RNG "nsm-hwrng"
#define AUTHORITIES "cacert.pem"        /* what botocore and certifi call their file */

static const char *const MODULES[] = {  /* each after those it needs */
    "virtio_mmio", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport",
    "nsm",
};

static unsigned replaced;

static void say(const char *what, int number)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("boot: %ld.%02ld s %s %d\n", (long) now.tv_sec, now.tv_nsec / 10000000, what, number);
    fflush(stdout);
}

static void __attribute__((noreturn)) power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void __attribute__((noreturn)) fail(const char *what)
{
    say(what, errno);
    power_off();
}

static void nap(void)
{
    struct timespec rest = { 0, 10000000 };

    nanosleep(&rest, NULL);
}

static void mount_at(const char *kind, const char *place, unsigned long flags, const char *data)
{
    if (mkdir(place, 0755) < 0 && errno != EEXIST)
        fail("no folder for a file system, error");
    if (mount(kind, place, kind, flags, data) < 0 && errno != EBUSY)
        fail("a file system cannot be mounted, error");
}

static void mount_all(void)
{
    const unsigned long quiet = MS_NOSUID | MS_NOEXEC;

    mount_at("devtmpfs", "/dev", MS_NOSUID, NULL);
    mount_at("proc", "/proc", quiet | MS_NODEV, NULL);
    mount_at("sysfs", "/sys", quiet | MS_NODEV, NULL);
}

static void load_modules(void)
{
    char path[128];

    for (size_t i = 0; i < sizeof MODULES / sizeof *MODULES; i++) {
        snprintf(path, sizeof path, "/modules/%s.ko", MODULES[i]);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) < 0 && errno != EEXIST))
            fail("a module cannot be loaded, error");
        close(file);
    }
}

/* The NSM's driver makes its device some time after it is loaded. */
static void wait_for(const char *path)
{
    for (int i = 0; access(path, F_OK) < 0; i++) {
        if (i == WAIT_SECONDS * 100)
            fail("a device does not appear, error");
        nap();
    }
}

static ssize_t read_file(const char *path, char *text, size_t room)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = -1;

    if (file >= 0) {
        size_t got = 0;
        while (got < room - 1 && (length = read(file, text + got, room - 1 - got)) > 0)
            got += length;
        if (length >= 0)
            text[length = got] = 0;
        close(file);
    }
    return length;
}

/* Randomness comes from the NSM, and the kernel's pool is seeded from it before anything runs. */
static void seed(void)
{
    struct {
        struct rand_pool_info info;
        unsigned char bytes[SEED_BYTES];
    } pool = { .info = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES } };
    char current[64];
    int source, sink;

    if (read_file(RNG_CURRENT, current, sizeof current) < 0)
        fail("no source of randomness, error");
    if (strcmp(strtok(current, "\n"), NSM_RNG) != 0)
        fail("the source of randomness is not the NSM, error");
    source = open("/dev/hwrng", O_RDONLY | O_CLOEXEC);
    sink = open("/dev/random", O_RDWR | O_CLOEXEC);
    if (source < 0 || sink < 0 || read(source, pool.bytes, SEED_BYTES) != SEED_BYTES)
        fail("the NSM gives no randomness, error");
    if (ioctl(sink, RNDADDENTROPY, &pool) < 0)
        fail("the kernel takes no randomness, error");
    memset(&pool, 0, sizeof pool);
    close(source);
    close(sink);
}

static void raise_loopback(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &request) < 0)
        fail("the loopback interface does not come up, error");
    close(any);
}

static void beat(void)
{
    struct sockaddr_vm parent = {
        .svm_family = AF_VSOCK, .svm_cid = PARENT_CID, .svm_port = HEARTBEAT_PORT,
    };
    struct timeval patience = { WAIT_SECONDS, 0 };
    unsigned char byte = HEARTBEAT;
    int stream = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(stream, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (stream < 0 || connect(stream, (struct sockaddr *) &parent, sizeof parent) < 0)
        fail("the parent does not take the heartbeat, error");
    if (write(stream, &byte, 1) != 1 || read(stream, &byte, 1) != 1 || byte != HEARTBEAT)
        fail("the parent does not answer the heartbeat, error");
    close(stream);
}

static int replace_authorities(const char *path, const struct stat *status, int kind,
                               struct FTW *where)
{
    char text[MAX_TEXT];
    ssize_t length;
    int file;

    if (kind != FTW_F || !S_ISREG(status->st_mode) || strcmp(path + where->base, AUTHORITIES) != 0)
        return 0;
    length = read_file("/ca.pem", text, sizeof text);
    file = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (length <= 0 || file < 0 || write(file, text, length) != length)
        fail("a file of certificate authorities cannot be written, error");
    close(file);
    replaced++;
    return 0;
}

/* Only in the twin: its KMS shows a certificate of its own. PCR0 and PCR1 measure /ca.pem. */
static void trust_twin(void)
{
    if (access("/ca.pem", F_OK) < 0)
        return;
    nftw("/rootfs", replace_authorities, 32, FTW_PHYS | FTW_MOUNT);
    if (replaced == 0)
        fail("no file of certificate authorities in the image, error");
    say("the twin's certificate authority is in place of", replaced);
}

/* Split the lines of a file; what they point into stays. */
static void read_lines(const char *path, char **lines)
{
    char *text = malloc(MAX_TEXT);
    size_t count = 0;

    if (!text || read_file(path, text, MAX_TEXT) < 0)
        fail("the command or its environment is missing, error");
    for (char *line = strtok(text, "\n"); line && count < MAX_LIST - 1; line = strtok(NULL, "\n"))
        lines[count++] = line;
    lines[count] = NULL;
}

static void enter(void)
{
    mount_at("tmpfs", "/rootfs/run", MS_NOSUID | MS_NODEV, "mode=0755");
    mount_at("tmpfs", "/rootfs/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("devtmpfs", "/rootfs/dev", MS_NOSUID, NULL);
    mount_at("proc", "/rootfs/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
    mount_at("sysfs", "/rootfs/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
    mount_at("tmpfs", "/rootfs/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    if (chdir("/rootfs") < 0 || chroot(".") < 0)
        fail("the root cannot be entered, error");
    symlink("/proc/self/fd", "/dev/fd");
}

static pid_t start(void)
{
    static char *command[MAX_LIST], *environment[MAX_LIST];
    pid_t child;

    read_lines("/cmd", command);
    read_lines("/env", environment);
    if (!command[0])
        fail("the command is empty, error");
    enter();
    child = fork();
    if (child < 0)
        fail("no process can be started, error");
    if (child == 0) {
        setsid();
        environ = environment;
        execvpe(command[0], command, environment);
        say("the command cannot be run, error", errno);
        _exit(127);
    }
    return child;
}

int main(void)
{
    pid_t child, ended;
    int status;

    if (getpid() != 1)
        return 1;
    mount_all();
    say("init runs", 0);
    load_modules();
    wait_for("/dev/nsm");
    seed();
    raise_loopback();
    trust_twin();
    beat();
    child = start();
    say("the application is started", 0);
    do
        ended = wait(&status);
    while (ended != child && (ended > 0 || errno == EINTR));
    say("the application has ended with", WIFEXITED(status) ? WEXITSTATUS(status)
                                                            : 128 + WTERMSIG(status));
    power_off();
}
