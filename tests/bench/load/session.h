// One console session, whatever the way to it: only the bytes of the guest go in and out.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct session {
    int fd;
    pid_t child;           // the program under our pty, 0 if there is none
    bool websocket, ttyd;  // ttyd: its own protocol within WebSocket
    bool ended;
    int close_code;        // of the WebSocket close frame, 0 before it or without one
    double began;          // seconds, clock of now(): when connecting began
    uint8_t header[14];    // of the frame being read
    size_t header_size;
    uint64_t frame_left;   // bytes of its payload still to come
    bool in_frame, at_start, skipped;
    uint8_t control[125];  // payload of a ping or close
    size_t control_size;
};

double now(void);

// Connects to ws://127.0.0.1:PORT/PATH, ttyd://127.0.0.1:PORT/PATH, tcp:PORT, pty:DEVICE, or cmd:COMMAND under a pty
// of ours. Returns an error, or NULL.
const char *session_connect(struct session *session, const char *target);

// Sends a few bytes as one message.
void session_send(struct session *session, const void *data, size_t size);

// Reads what is there, at most BUFFER_SIZE bytes with framing, into the buffer; returns how many bytes of it are the
// guest's. 0: none, or the session has ended.
enum { BUFFER_SIZE = 1 << 20 };
size_t session_read(struct session *session, uint8_t *buffer);

// Waits for something to read, then reads it; 0 also after this time.
size_t session_wait(struct session *session, uint8_t *buffer, double seconds);

void session_close(struct session *session);
