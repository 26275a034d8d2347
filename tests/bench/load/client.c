// The one client of all that is measured: it holds console sessions and does with them what it is told.
//
// One command a line on stdin, one JSON object a line on stdout: figures, or {"error": "..."}.
//   connect TARGET   one more session (session.h has the kinds); handshake_ms
//   echo SECONDS     types 0x01 in the newest until it comes back; first_echo_ms since its connect began
//   drain            reads the newest until it is quiet
//   keys COUNT       types a key and waits for its echo, session after session; p50_us p99_us max_us lost
//   burst            types a key in each session at once and waits for all; p50_us p99_us max_us lost
//   flood [COUNT]    has the guests of so many sessions print without end (0x06), by default of all
//                    sessions; the next three are about these
//   read SECONDS     reads so long, or until the next command; bytes, seconds, breaks (where the pattern was broken), ended (sessions)
//   again            has them begin anew with counting what it prints; seconds (clock)
//   stop             ends it, also if another client had it begin; felt_ms from that to its end (0x04), counted by the guest, bytes read meanwhile,
//                    seconds (clock)
//   close            closes all sessions
// Between two commands sessions are read and pings answered, but while they flood: then the client is stalled.
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

enum { MOST = 1024, LINE = 4096 };
enum { PROBE = 0x01, END = 0x04, FLOOD = 0x06, STOP = 'x', FIRST = 0x20, LAST = 0x7e, PERIOD = LAST + 1 - FIRST };

static const double PROBE_EVERY = 0.005, QUIET = 0.05, QUIET_LIMIT = 3, KEY_LIMIT = 2, STOP_LIMIT = 60;

static struct session sessions[MOST];
static int count;
static int flooding; // sessions, the first ones
static uint8_t buffer[BUFFER_SIZE];

static void answer(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void fail(const char *what) { answer("{\"error\": \"%s\"}", what); }

// Returns how many of the flooding sessions have ended.
static int ended(void)
{
    int found = 0;

    for (int i = 0; i < flooding; i++)
        found += sessions[i].ended;
    return found;
}

// ---- times of keys

static double times[MOST * 1000];
static long taken, lost;

static int by_size(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void answer_times(void)
{
    if (taken == 0) {
        fail("no key came back");
        return;
    }
    qsort(times, taken, sizeof *times, by_size);
    answer("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"lost\": %ld}", times[taken / 2] * 1e6,
           times[taken * 99 / 100] * 1e6, times[taken - 1] * 1e6, lost);
}

// ---- commands

static void command_connect(const char *target)
{
    const char *error = count < MOST ? session_connect(&sessions[count], target) : "too many sessions";

    if (error != NULL) {
        fail(error);
        return;
    }
    answer("{\"handshake_ms\": %.3f}", (now() - sessions[count].began) * 1e3);
    count++;
}

static void command_drain(void)
{
    struct session *session = &sessions[count - 1];
    double last = now(), limit = last + QUIET_LIMIT;

    while (now() < limit && now() - last < QUIET && !session->ended)
        if (session_wait(session, buffer, QUIET / 4) > 0)
            last = now();
    answer("{}");
}

// A terminal that is not raw yet would echo 0x01 as ^A: when it comes back as it is, it has been at the guest.
static void command_echo(double limit)
{
    static const uint8_t probe = PROBE;
    struct session *session = &sessions[count - 1];
    double begin = now(), last = 0;

    while (now() - begin < limit && !session->ended) {
        if (now() - last >= PROBE_EVERY) {
            session_send(session, &probe, 1);
            last = now();
        }
        if (memchr(buffer, PROBE, session_wait(session, buffer, PROBE_EVERY)) != NULL) {
            answer("{\"first_echo_ms\": %.3f}", (now() - session->began) * 1e3);
            return;
        }
    }
    answer("{\"error\": \"no echo\", \"close_code\": %d}", session->close_code);
}

static void command_keys(long keys)
{
    taken = lost = 0;
    for (long i = 0; i < keys && taken < (long)(sizeof times / sizeof *times); i++) {
        struct session *session = &sessions[i % count];
        uint8_t key = 'a' + i % 26;
        double begin = now();
        bool echoed = false;

        session_send(session, &key, 1);
        while (!echoed && !session->ended && now() - begin < KEY_LIMIT)
            echoed = memchr(buffer, key, session_wait(session, buffer, KEY_LIMIT)) != NULL;
        if (echoed)
            times[taken++] = now() - begin;
        else
            lost++;
    }
    answer_times();
}

// Waits for something to read in the first sessions, at most so long; gives what was read to TAKE.
static void serve(int sessions_served, double seconds, void (*take)(int session, size_t size))
{
    static struct pollfd entries[MOST];

    for (int i = 0; i < sessions_served; i++)
        entries[i] = (struct pollfd){.fd = sessions[i].ended ? -1 : sessions[i].fd, .events = POLLIN};
    poll(entries, sessions_served, (int)(seconds * 1e3));
    for (int i = 0; i < sessions_served; i++)
        if (entries[i].revents != 0)
            take(i, session_read(&sessions[i], buffer));
}

static double burst_began;
static bool echoed[MOST];

static void take_burst(int session, size_t size)
{
    if (!echoed[session] && memchr(buffer, 'k', size) != NULL) {
        echoed[session] = true;
        times[taken++] = now() - burst_began;
    }
}

static void command_burst(void)
{
    memset(echoed, 0, sizeof echoed);
    taken = 0;
    burst_began = now();
    for (int i = 0; i < count; i++)
        session_send(&sessions[i], "k", 1);
    while (taken < count && now() - burst_began < KEY_LIMIT)
        serve(count, KEY_LIMIT, take_burst);
    lost = count - taken;
    answer_times();
}

// ---- output without end: FIRST..LAST over and over

static long long bytes;
static long breaks;
static uint8_t pattern[BUFFER_SIZE + PERIOD];
static int next[MOST]; // the byte that is to come in each session, 0: any

static void verify(int session, size_t size)
{
    if (size == 0)
        return;
    bytes += size;
    if (next[session] != 0 && memcmp(buffer, pattern + next[session] - FIRST, size) != 0)
        breaks++;
    next[session] = buffer[size - 1] == LAST ? FIRST : buffer[size - 1] + 1;
    if (next[session] < FIRST || next[session] > LAST)
        next[session] = 0; // something else than output: a notice, perhaps
}

static void tell_flooding(uint8_t byte)
{
    for (int i = 0; i < flooding; i++)
        session_send(&sessions[i], &byte, 1);
}

static void command_flood(int floods)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = FIRST + i % PERIOD;
    memset(next, 0, sizeof next);
    flooding = floods > 0 && floods < count ? floods : count;
    tell_flooding(FLOOD);
    answer("{}");
}

static bool command_waits(void)
{
    struct pollfd entry = {.fd = 0, .events = POLLIN};

    return poll(&entry, 1, 0) > 0;
}

static void command_read(double seconds)
{
    double begin = now();

    bytes = breaks = 0;
    while (now() - begin < seconds && ended() < flooding && !command_waits())
        serve(flooding, 0.1, verify);
    answer("{\"bytes\": %lld, \"seconds\": %.6f, \"breaks\": %ld, \"ended\": %d}", bytes, now() - begin, breaks,
           ended());
}

static void command_again(void)
{
    tell_flooding(FLOOD);
    answer("{\"seconds\": %.6f}", now());
}

static bool stopped[MOST];
static uint8_t tail[MOST][9]; // of each session's output: 8 hexadecimal digits and END
static int left;

static void take_end(int session, size_t size)
{
    uint8_t *last = tail[session];
    size_t fresh = size < sizeof tail[0] ? size : sizeof tail[0];

    bytes += size;
    memmove(last, last + fresh, sizeof tail[0] - fresh);
    memcpy(last + sizeof tail[0] - fresh, buffer + size - fresh, fresh);
    if (!stopped[session] && last[sizeof tail[0] - 1] == END) {
        stopped[session] = true;
        left--;
    }
}

static void command_stop(void)
{
    double begin = now(), end;

    if (flooding == 0)
        flooding = count; // another client had it begin
    memset(stopped, 0, sizeof stopped);
    memset(tail, 0, sizeof tail);
    left = flooding;
    bytes = 0;
    tell_flooding(STOP);
    while (left > 0 && ended() < flooding && now() - begin < STOP_LIMIT)
        serve(flooding, 0.1, take_end);
    end = now();
    flooding = 0;
    if (left > 0)
        answer("{\"error\": \"the flood did not end\", \"left\": %d, \"close_code\": %d}", left,
               sessions[0].close_code);
    else
        answer("{\"felt_ms\": %.3f, \"counted\": %ld, \"bytes\": %lld, \"seconds\": %.6f}", (end - begin) * 1e3,
               strtol((char *)tail[0], NULL, 16), bytes, end);
}

static void command_close(void)
{
    while (count > 0)
        session_close(&sessions[--count]);
    flooding = 0;
    answer("{}");
}

// Serves the sessions that do not flood until a command comes.
static void wait_for_command(void)
{
    static struct pollfd entries[MOST + 1];

    for (;;) {
        entries[count] = (struct pollfd){.fd = 0, .events = POLLIN};
        for (int i = 0; i < count; i++)
            entries[i] = (struct pollfd){
                .fd = i < flooding || sessions[i].ended ? -1 : sessions[i].fd, .events = POLLIN};
        poll(entries, count + 1, -1);
        if (entries[count].revents != 0)
            return;
        for (int i = 0; i < count; i++)
            if (entries[i].revents != 0)
                session_read(&sessions[i], buffer);
    }
}

int main(void)
{
    char line[LINE];

    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdin, NULL, _IONBF, 0); // or poll() would not know of a line that stdio has read already
    while (wait_for_command(), fgets(line, sizeof line, stdin) != NULL) {
        char *argument = strchr(line, ' ');

        line[strcspn(line, "\n")] = 0;
        if (argument != NULL)
            *argument++ = 0;
        else
            argument = "";
        if (strcmp(line, "connect") == 0)
            command_connect(argument);
        else if (count == 0 && strcmp(line, "close") != 0)
            fail("no session");
        else if (strcmp(line, "echo") == 0)
            command_echo(atof(argument));
        else if (strcmp(line, "drain") == 0)
            command_drain();
        else if (strcmp(line, "keys") == 0)
            command_keys(atol(argument));
        else if (strcmp(line, "burst") == 0)
            command_burst();
        else if (strcmp(line, "flood") == 0)
            command_flood(atoi(argument));
        else if (strcmp(line, "read") == 0)
            command_read(atof(argument));
        else if (strcmp(line, "again") == 0)
            command_again();
        else if (strcmp(line, "stop") == 0)
            command_stop();
        else if (strcmp(line, "close") == 0)
            command_close();
        else
            fail("no such command");
    }
    command_close();
    return 0;
}
