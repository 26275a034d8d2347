#define _GNU_SOURCE
#include "session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void send_all(struct session *session, const void *data, size_t size)
{
    // What is sent here is tiny: a socket or pty that does not take it at once is taken for dead.
    if (!session->ended && write(session->fd, data, size) != (ssize_t)size)
        session->ended = true;
}

static void send_frame(struct session *session, int opcode, const void *data, size_t size)
{
    static const uint8_t mask[4] = {0x12, 0x9a, 0x5c, 0xe7};
    uint8_t frame[2 + sizeof mask + 125] = {0x80 | opcode, 0x80 | size};

    memcpy(frame + 2, mask, sizeof mask);
    for (size_t i = 0; i < size; i++)
        frame[2 + sizeof mask + i] = ((const uint8_t *)data)[i] ^ mask[i % 4];
    send_all(session, frame, 2 + sizeof mask + size);
}

void session_send(struct session *session, const void *data, size_t size)
{
    uint8_t message[125] = {'0'}; // ttyd's mark of input

    if (session->ttyd) {
        memcpy(message + 1, data, size);
        send_frame(session, BINARY, message, size + 1);
    } else if (session->websocket) {
        send_frame(session, BINARY, data, size);
    } else {
        send_all(session, data, size);
    }
}

static const char *handshake(struct session *session, int port, const char *path)
{
    char request[2048], answer[8192];
    size_t size = 0;
    char *end = NULL;

    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\n"
                          "Host: 127.0.0.1:%d\r\n"
                          "Origin: http://127.0.0.1:%d\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "%s\r\n",
                          path, port, port, session->ttyd ? "Sec-WebSocket-Protocol: tty\r\n" : "");
    send_all(session, request, length);
    while (end == NULL) {
        // Byte by byte: what comes behind the header is a frame already.
        if (size == sizeof answer - 1 || read(session->fd, answer + size, 1) != 1)
            return "no answer to the handshake";
        answer[++size] = 0;
        end = size >= 4 && strcmp(answer + size - 4, "\r\n\r\n") == 0 ? answer + size : NULL;
    }
    if (strncmp(answer, "HTTP/1.1 101", 12) != 0)
        return "the handshake was refused";
    if (session->ttyd) {
        static const char hello[] = "{\"AuthToken\":\"\",\"columns\":80,\"rows\":24}";
        send_frame(session, BINARY, hello, sizeof hello - 1);
    }
    return NULL;
}

static const char *connect_tcp(struct session *session, int port)
{
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(session->fd, (struct sockaddr *)&address, sizeof address) != 0)
        return strerror(errno);
    return NULL;
}

static const char *open_pty(struct session *session, const char *device)
{
    struct termios settings;

    session->fd = open(device, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (session->fd < 0 || tcgetattr(session->fd, &settings) != 0)
        return strerror(errno);
    cfmakeraw(&settings);
    tcsetattr(session->fd, TCSANOW, &settings);
    return NULL;
}

static const char *run(struct session *session, const char *command)
{
    session->child = forkpty(&session->fd, NULL, NULL, NULL);
    if (session->child < 0)
        return strerror(errno);
    if (session->child == 0) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    fcntl(session->fd, F_SETFD, FD_CLOEXEC);
    return NULL;
}

const char *session_connect(struct session *session, const char *target)
{
    int port = 0, path = 0;
    const char *error;

    *session = (struct session){.fd = -1, .began = now()};
    session->ttyd = sscanf(target, "ttyd://127.0.0.1:%d%n", &port, &path) == 1;
    session->websocket = session->ttyd || sscanf(target, "ws://127.0.0.1:%d%n", &port, &path) == 1;
    if (session->websocket) {
        error = connect_tcp(session, port);
        if (error == NULL)
            error = handshake(session, port, target + path);
    } else if (sscanf(target, "tcp:%d", &port) == 1) {
        error = connect_tcp(session, port);
    } else if (strncmp(target, "pty:", 4) == 0) {
        error = open_pty(session, target + 4);
    } else if (strncmp(target, "cmd:", 4) == 0) {
        error = run(session, target + 4);
    } else {
        error = "no such kind of target";
    }
    if (error == NULL)
        fcntl(session->fd, F_SETFL, O_NONBLOCK);
    return error;
}

static void end_control_frame(struct session *session, int opcode)
{
    if (opcode == PING)
        send_frame(session, PONG, session->control, session->control_size);
    if (opcode == CLOSE) {
        if (session->control_size >= 2)
            session->close_code = session->control[0] << 8 | session->control[1];
        session->ended = true;
    }
}

// Takes one byte of a frame's header; with the last one the payload begins.
static void parse_header(struct session *session, uint8_t byte)
{
    uint8_t *header = session->header;
    size_t size_bytes;

    header[session->header_size++] = byte;
    if (session->header_size < 2)
        return;
    session->frame_left = header[1] & 127;
    size_bytes = session->frame_left == 127 ? 8 : session->frame_left == 126 ? 2 : 0;
    if (session->header_size < 2 + size_bytes)
        return;
    if (size_bytes != 0)
        session->frame_left = 0;
    for (size_t i = 0; i < size_bytes; i++)
        session->frame_left = session->frame_left << 8 | header[2 + i];
    session->header_size = 0;
    session->control_size = 0;
    session->in_frame = session->frame_left > 0;
    session->at_start = (header[0] & 15) != CONTINUATION;
    if (!session->in_frame)
        end_control_frame(session, header[0] & 15);
}

// Leaves of the bytes read those that are the guest's, at the buffer's beginning.
static size_t unframe(struct session *session, uint8_t *buffer, size_t size)
{
    size_t kept = 0;

    for (size_t at = 0; at < size;) {
        int opcode = session->header[0] & 15;
        size_t piece = size - at;

        if (!session->in_frame) {
            parse_header(session, buffer[at++]);
            continue;
        }
        if (piece > session->frame_left)
            piece = session->frame_left;
        session->frame_left -= piece;
        session->in_frame = session->frame_left > 0;
        if (opcode >= CLOSE) {
            memcpy(session->control + session->control_size, buffer + at, piece);
            session->control_size += piece;
            if (!session->in_frame)
                end_control_frame(session, opcode);
            at += piece;
            continue;
        }
        if (session->ttyd && session->at_start) {
            session->skipped = buffer[at] != '0'; // a title or settings, not output
            at++;
            piece--;
        }
        session->at_start = false;
        if (!session->ttyd || !session->skipped) {
            memmove(buffer + kept, buffer + at, piece);
            kept += piece;
        }
        at += piece;
    }
    return kept;
}

size_t session_read(struct session *session, uint8_t *buffer)
{
    ssize_t size = read(session->fd, buffer, BUFFER_SIZE);

    if (size <= 0) {
        if (size == 0 || (errno != EAGAIN && errno != EINTR))
            session->ended = true;
        return 0;
    }
    return session->websocket ? unframe(session, buffer, size) : (size_t)size;
}

size_t session_wait(struct session *session, uint8_t *buffer, double seconds)
{
    struct pollfd entry = {.fd = session->fd, .events = POLLIN};
    struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};

    return ppoll(&entry, 1, &time, NULL) > 0 ? session_read(session, buffer) : 0;
}

static void end_child(pid_t child)
{
    kill(child, SIGHUP);
    for (int tries = 0; tries < 50; tries++) {
        if (waitpid(child, NULL, WNOHANG) == child)
            return;
        usleep(20000);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

void session_close(struct session *session)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 255};

    if (session->websocket)
        send_frame(session, CLOSE, normal, sizeof normal);
    if (session->fd >= 0)
        close(session->fd);
    if (session->child > 0)
        end_child(session->child);
}
