/*
 * An application for tests: does in the enclave what the test asks for over vsock port 5000.
 *
 * The first byte of a connection says what: 'n' a request to the NSM, 'e' give back what comes,
 * 'd' dial the CID and port that follow and copy both ways until both ends are done, 'f' give the
 * file whose name follows, 'h' cut a hole into a file and give the blocks that it had and has.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct message {
    struct iovec request, response;
};

static int read_all(int from, void *data, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t count = read(from, (char *) data + got, size - got);
        if (count <= 0)
            return -1;
        got += count;
    }
    return 0;
}

static void write_all(int to, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(to, (const char *) data + done, size - done);
        if (count <= 0)
            exit(1);
        done += count;
    }
}

static void ask_nsm(int peer)
{
    static unsigned char request[0x1000], response[0x3000];
    uint32_t size;
    int nsm = open("/dev/nsm", O_RDWR);

    while (read_all(peer, &size, 4) == 0 && size <= sizeof request
           && read_all(peer, request, size) == 0) {
        struct message message = { { request, size }, { response, sizeof response } };
        if (ioctl(nsm, _IOWR(0x0a, 0, struct message), &message) < 0)
            exit(1);
        size = message.response.iov_len;
        write_all(peer, &size, 4);
        write_all(peer, response, size);
    }
}

static void copy(int from, int to, size_t size)
{
    char *data = malloc(size);
    ssize_t count;

    while ((count = read(from, data, size)) > 0)
        write_all(to, data, count);
    shutdown(to, SHUT_WR);
    free(data);
}

static void dial(int peer)
{
    struct sockaddr_vm address = { .svm_family = AF_VSOCK };
    uint32_t place[3];              /* CID, port, bytes a write */
    unsigned char outcome = 0;
    int stream = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (read_all(peer, place, sizeof place) < 0)
        return;
    address.svm_cid = place[0];
    address.svm_port = place[1];
    if (connect(stream, (struct sockaddr *) &address, sizeof address) < 0)
        outcome = errno;
    write_all(peer, &outcome, 1);
    if (outcome)
        return;
    if (fork() == 0) {
        copy(stream, peer, place[2]);
        _exit(0);
    }
    copy(peer, stream, place[2]);
    wait(NULL);
}

static void give_file(int peer)
{
    char path[256];
    size_t length = 0;

    while (length < sizeof path && read_all(peer, path + length, 1) == 0 && path[length])
        length++;
    copy(open(path, O_RDONLY), peer, 4096);
}

/* As the engine gives up weights: see app/enclave/engine/mapped.py. */
static void cut_hole(int peer)
{
    const size_t size = 1 << 20;
    int file = open("/run/hole", O_RDWR | O_CREAT | O_EXCL, 0600);
    struct stat had, has;
    void *map;

    if (ftruncate(file, size) < 0)
        exit(1);
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED)
        exit(1);
    memset(map, 1, size);
    if (fstat(file, &had) < 0 || madvise(map, size / 2, MADV_REMOVE) < 0 || fstat(file, &has) < 0)
        exit(1);
    write_all(peer, &(uint32_t) { had.st_blocks }, 4);
    write_all(peer, &(uint32_t) { has.st_blocks }, 4);
    unlink("/run/hole");
}

static void serve(int peer)
{
    char what;

    if (read_all(peer, &what, 1) < 0)
        return;
    if (what == 'n')
        ask_nsm(peer);
    if (what == 'e')
        copy(peer, peer, 256 * 1024);
    if (what == 'd')
        dial(peer);
    if (what == 'f')
        give_file(peer);
    if (what == 'h')
        cut_hole(peer);
}

int main(void)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 5000,
    };
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

    signal(SIGCHLD, SIG_IGN);
    if (bind(listener, (struct sockaddr *) &address, sizeof address) < 0
        || listen(listener, 128) < 0)
        return 1;
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (fork() == 0) {
            signal(SIGCHLD, SIG_DFL);
            serve(peer);
            _exit(0);
        }
        close(peer);
    }
}
