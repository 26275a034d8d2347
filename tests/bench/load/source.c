// Synthetic guests: consoles as fast as a pty or a socket is, with the protocol of tests/guests/echo.asm.
//
// usage: source PTYS    Makes so many ptys and listens on a TCP port of loopback; prints the port, then the ptys' paths,
//                       a line each, and serves until stdin ends.
// Each byte is sent back. 0x06: prints 0x20..0x7e over and over, counted anew with each 0x06, until another byte comes,
// which is dropped; then how many bytes that were in 8 hexadecimal digits, and 0x04.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { FLOOD = 0x06, PERIOD = 0x7f - 0x20, CHUNK = 65536, ROUNDS = 16, HELD_MAX = 65536 };

struct console {
    int fd;
    bool listens, floods;
    size_t phase;      // within the pattern
    uint32_t printed;  // since the flood began
    size_t held;       // bytes of echo that were not taken yet
    char echo[2 * HELD_MAX];
};

static char pattern[CHUNK + PERIOD];
static int epoll;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void serve(int fd, bool listens)
{
    struct console *console = calloc(1, sizeof *console);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = console};

    console->fd = fd;
    console->listens = listens;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

// Input waits while much of its echo does, as with a UART; output is asked for while there is some.
static void arm(struct console *console)
{
    struct epoll_event event = {.data.ptr = console};

    event.events = (console->held < HELD_MAX ? EPOLLIN : 0) | (console->held > 0 || console->floods ? EPOLLOUT : 0);
    epoll_ctl(epoll, EPOLL_CTL_MOD, console->fd, &event);
}

static void make_pty(void)
{
    int master, slave; // the slave stays open: a master without one would only tell of a hang-up
    char path[64];
    struct termios settings;

    if (openpty(&master, &slave, path, NULL, NULL) != 0)
        die("openpty");
    tcgetattr(slave, &settings);
    cfmakeraw(&settings);
    tcsetattr(slave, TCSANOW, &settings);
    chmod(path, 0666); // libvirtd's user opens it
    puts(path);
    serve(master, false);
}

static void make_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0)
        die("bind");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    serve(listener, true);
}

static void accept_client(int listener)
{
    int on = 1, fd = accept(listener, NULL, NULL);

    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    serve(fd, false);
}

static void take(struct console *console, uint8_t byte)
{
    if (byte == FLOOD) {
        console->floods = true;
        console->printed = 0;
    } else if (console->floods) {
        console->floods = false;
        console->held += sprintf(console->echo + console->held, "%08x\x04", console->printed);
    } else {
        console->echo[console->held++] = byte;
    }
}

// Returns false when the other side is gone.
static bool take_input(struct console *console)
{
    uint8_t input[4096];
    ssize_t size = read(console->fd, input, sizeof input);

    if (size <= 0)
        return size < 0 && errno == EAGAIN;
    for (ssize_t i = 0; i < size; i++)
        take(console, input[i]);
    return true;
}

static bool print(struct console *console)
{
    if (console->held > 0) {
        ssize_t written = write(console->fd, console->echo, console->held);
        if (written < 0)
            return errno == EAGAIN;
        console->held -= written;
        memmove(console->echo, console->echo + written, console->held);
    }
    for (int round = 0; console->floods && console->held == 0 && round < ROUNDS; round++) {
        ssize_t written = write(console->fd, pattern + console->phase, CHUNK);
        if (written < 0)
            return errno == EAGAIN;
        console->printed += written;
        console->phase = (console->phase + written) % PERIOD;
        if (written < CHUNK)
            break;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct console input; // ours, not a guest's: its end is our end
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &input};

    if (argc != 2) {
        fputs("usage: source PTYS\n", stderr);
        return 2;
    }
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = 0x20 + i % PERIOD;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    make_listener();
    for (int i = 0; i < atoi(argv[1]); i++)
        make_pty();
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, -1);

        for (int i = 0; i < ready; i++) {
            struct console *console = events[i].data.ptr;

            if (console == &input)
                return 0;
            if (console->listens) {
                accept_client(console->fd);
            } else if (((events[i].events & ~EPOLLOUT) && !take_input(console)) || !print(console)) {
                close(console->fd);
                free(console);
            } else {
                arm(console);
            }
        }
    }
}
