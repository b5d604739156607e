/* quickfire.h: Quickfire functions in C, and calls to functions in any language.
 *
 * Link libquickfire.a (with -lpthread -ldl -lm) or libquickfire.so. C11 and C++11 and later; Linux. Guide: docs/coding/c.md.
 *
 * A function:
 *
 *     static int32_t shout(void *context, const qf_invocation *invocation, qf_reply *reply) {
 *         qf_bytes payload = qf_invocation_payload(invocation);
 *         uint8_t *space = qf_reply_space(reply, payload.size);
 *         for (size_t i = 0; i < payload.size; i++) space[i] = (uint8_t)toupper(payload.data[i]);
 *         return QF_OK;
 *     }
 *     int main(void) { return qf_serve_main(shout, NULL); }
 *
 * A caller:
 *
 *     qf_client *client = qf_connect("quickfire://127.0.0.1:7450", NULL, NULL);
 *     qf_function *function = qf_find(client, "shout", NULL);
 *     qf_outcome *outcome = qf_call(function, "hello", 5, NULL);
 *     if (outcome->kind == QF_OK) fwrite(outcome->payload.data, 1, outcome->payload.size, stdout);
 *     else fprintf(stderr, "%s\n", outcome->message);
 *     qf_outcome_free(outcome);
 *     qf_function_free(function);
 *     qf_client_free(client);
 *
 * Ownership. What a function of this library returns by pointer is the caller's to free, with the function of its type's name and
 * _free, once; NULL is freed by doing nothing. Pointers inside of structs are valid as long as the struct. What is handed in is only
 * read, and only until the function returns; payloads are copied before it does.
 *
 * Errors. Functions that can fail give a qf_outcome, which says what happened, whose fault it is, and whether to try again. A NULL or a
 * value out of range where none may be is an outcome too, of kind QF_INVALID_ARGUMENT; a function that can give no outcome does nothing
 * then, and returns the zero of its type. A pointer that is neither NULL nor what this library gave out, or was freed, is beyond help.
 *
 * Bugs. Should this library itself fail an assertion, functions that give an outcome give one of kind QF_BUG, and the others abort the
 * process. No panic, and no exception, leaves it. A handler must not leave by longjmp; a C++ exception that leaves it aborts the process.
 *
 * Threads. Clients, functions and queues may be used by any number of threads at once, and freed when no thread uses them. An outcome
 * is not changed by anybody. An invocation and a reply belong to the thread that runs the handler, until the handler returns.
 *
 * Forks. A forked process has no use of what its parent made, must not free it either, and makes its own.
 *
 * Times are in nanoseconds, sizes in bytes. Nothing here changes errno on purpose, and nothing may be called in a signal handler.
 *
 * Structs that the user fills in begin with their size, so that later versions of this library can add fields at the end: initialise them
 * with the macro of their name. Structs that the library fills in may grow in the same way; their size is not the user's to know.
 */
#ifndef QUICKFIRE_H
#define QUICKFIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- words ---------------------------------------------------------------------------------------------------------------------- */

/* What kind of end something has. Of a call: how it ended, in a word; `status` says it exactly. */
enum {
    QF_OK = 0,                /* It went well. */
    QF_FUNCTION_ERROR = 1,    /* The function ran and answered with an error of its own: `payload`. */
    QF_BACKPRESSURE = 2,      /* The function ran and found something overloaded that it calls: its name is `payload`. */
    QF_REFUSED = 3,           /* Not admitted; the function has not run. */
    QF_EXPIRED = 4,           /* The deadline or the function's time-out came first. */
    QF_CANCELLED = 5,         /* Cancelled, by its caller or by the router. */
    QF_WORKER_LOST = 6,       /* Its process died or misbehaved, or made a result that is too large. */
    QF_DISCONNECTED = 7,      /* The connection ended, or none could be made in time. */
    QF_UNKNOWN_STATUS = 8,    /* The router is newer than this library; `status` is what it answered. */
    QF_WOULD_BLOCK = 9,       /* Only with QF_DO_NOT_WAIT: no credit, or no connection, just now. */
    QF_CONNECT_FAILED = 32,   /* No router there, or one that refuses. */
    QF_SERVE_FAILED = 33,     /* This process cannot serve, or cannot go on. */
    QF_INVALID_ARGUMENT = 64, /* NULL, or out of range: `message` names it. */
    QF_BUG = 65               /* This library failed an assertion of its own. */
};

/* Who has to change something. */
enum { QF_FAULT_NOBODY = 0, QF_FAULT_CALLER = 1, QF_FAULT_FUNCTION = 2, QF_FAULT_WORKER = 3, QF_FAULT_ROUTER = 4 };

/* What sending the same call again would do. */
enum {
    QF_RETRY_POINTLESS = 0,    /* Nothing new. */
    QF_RETRY_SAFE = 1,         /* No harm: the function has not run. */
    QF_RETRY_IF_IDEMPOTENT = 2 /* Harm, unless running twice is harmless: the function may have run. */
};

/* Whether the function had begun. */
enum { QF_NOT_STARTED = 0, QF_STARTED = 1, QF_MAYBE_STARTED = 2 };

/* How much a call matters when not all can be served. */
enum { QF_LOW = 0, QF_NORMAL = 1, QF_HIGH = 2, QF_CRITICAL = 3 };

/* In qf_outcome.status: nothing came from a router. */
#define QF_NO_STATUS UINT16_MAX

/* For ever, or never: no limit of time. */
#define QF_FOREVER UINT64_MAX

/* ---- shapes --------------------------------------------------------------------------------------------------------------------- */

/* A connection to a router, kept alive. */
typedef struct qf_client qf_client;

/* A function that can be called, of one client, which it keeps alive. */
typedef struct qf_function qf_function;

/* Calls on their way, and those that have ended and were not taken yet. */
typedef struct qf_queue qf_queue;

/* A call while its function runs. */
typedef struct qf_invocation qf_invocation;

/* The answer of a function while it is written. */
typedef struct qf_reply qf_reply;

/* `size` bytes. `data` is NULL only if `size` is 0. */
typedef struct qf_bytes {
    const uint8_t *data;
    size_t size;
} qf_bytes;

/* The trace a call belongs to, as W3C Trace Context has it. */
typedef struct qf_trace {
    uint8_t trace_id[16];
    uint8_t parent_span_id[8];
    uint32_t flags; /* Bit 0: sampled. */
} qf_trace;

/* When a call passed each stage, in nanoseconds from received; QF_FOREVER: never reached. */
typedef struct qf_timings {
    uint64_t received_at_ns; /* When the router read the frame, on its monotonic clock. */
    uint64_t admitted_ns;    /* Admission said yes. */
    uint64_t queued_ns;      /* The call stood in its run queue. */
    uint64_t pushed_ns;      /* The call was in a worker's ring. */
    uint64_t started_ns;     /* The function began. */
    uint64_t finished_ns;    /* The function returned. */
    uint64_t answered_ns;    /* The router wrote the answer. */
    uint32_t cause;          /* What the call waited for longest: `Cause` of docs/spec/wire.md. */
} qf_timings;

/* How a call ended, or what went wrong. */
typedef struct qf_outcome {
    int32_t kind;            /* QF_OK and so on. */
    uint16_t status;         /* The router's status, as in docs/spec/wire.md; QF_NO_STATUS if none came. */
    uint8_t fault;           /* QF_FAULT_... */
    uint8_t retry;           /* QF_RETRY_... */
    uint8_t started;         /* QF_NOT_STARTED and so on. */
    uint8_t has_timings;     /* 1: `timings` are filled in; the call asked. */
    uint64_t retry_after_ns; /* When the router thinks that trying again may succeed; QF_FOREVER: it does not say. */
    qf_bytes payload;        /* The result, the function's error, or the name of what is overloaded; else empty. */
    const char *message;     /* What happened, for people; ends with a zero, never NULL. */
    qf_timings timings;
} qf_outcome;

/* Options of a connection. */
typedef struct qf_connect_options {
    size_t struct_size;
    uint64_t connect_timeout_ns; /* How long connecting may take, and a call wait for a lost connection; 0: 5 s. */
    uint32_t credits;            /* Calls that may be outstanding at once; 0: the router says. */
    uint32_t frame_size_max;     /* The largest frame; 0: the router says. */
} qf_connect_options;
#define QF_CONNECT_OPTIONS_INIT {sizeof(qf_connect_options), 0, 0, 0}

/* Bits of qf_call_options.flags. */
enum {
    QF_IDEMPOTENT = 1,          /* Running it twice does no harm, so the router may try again when a worker dies with it. */
    QF_WANT_TIMINGS = 2,        /* Fill in `timings` of the outcome. */
    QF_HAS_IDEMPOTENCY_KEY = 4, /* `idempotency_key` counts. Implies QF_IDEMPOTENT. */
    QF_HAS_TRACE = 8,           /* `trace` counts. */
    QF_DO_NOT_WAIT = 16         /* qf_submit only: QF_WOULD_BLOCK instead of waiting for a credit or a connection. */
};

/* What a call says beside its payload. */
typedef struct qf_call_options {
    size_t struct_size;
    uint64_t timeout_ns;     /* The answer is needed within this: the deadline. QF_FOREVER: the function's own time-out applies. */
    uint64_t start_after_ns; /* The call must not start before this has passed; the deadline counts from there. */
    uint32_t flags;
    int32_t criticality;         /* QF_LOW to QF_CRITICAL. */
    uint8_t idempotency_key[16]; /* Calls with the same key are the same call. */
    qf_trace trace;
} qf_call_options;
#define QF_CALL_OPTIONS_INIT {sizeof(qf_call_options), QF_FOREVER, 0, 0, QF_NORMAL, {0}, {{0}, {0}, 0}}

/* ---- callers -------------------------------------------------------------------------------------------------------------------- */

/* Connects to quickfire://HOST:PORT, unix:///PATH or shm:///RUN_DIR; `url` NULL: to what $QUICKFIRE_CONNECT says, else to
 * quickfire://127.0.0.1:7450. `options` may be NULL. On failure returns NULL and, if `error` is not NULL, sets *error to an outcome of
 * kind QF_CONNECT_FAILED; else sets it to NULL.
 *
 * When the connection breaks, the calls on it end as QF_DISCONNECTED, and it is made again. */
qf_client *qf_connect(const char *url, const qf_connect_options *options, qf_outcome **error);

/* Lets go of the connection. It is closed when its functions are freed too and no call is on its way. */
void qf_client_free(qf_client *client);

/* A handle to the function `name`. The router is asked once. On failure returns NULL and, if `error` is not NULL, sets *error: QF_REFUSED
 * with status 16 where there is no such function. */
qf_function *qf_find(const qf_client *client, const char *name, qf_outcome **error);

void qf_function_free(qf_function *function);

/* Calls and waits for the end. `options` may be NULL. Never returns NULL. */
qf_outcome *qf_call(const qf_function *function, const void *payload, size_t size, const qf_call_options *options);

/* A queue for calls that are not waited for one by one. Never returns NULL. */
qf_queue *qf_queue_new(void);

/* Cancels what is on its way. */
void qf_queue_free(qf_queue *queue);

/* Sends a call and returns; many may be outstanding. `tag` is any number that no call in the queue has. Waits only while every credit of
 * the connection is in use or the connection is being made again. Returns NULL if the call is on its way; else it is not in the queue,
 * and what is returned says why. */
qf_outcome *qf_submit(qf_queue *queue, uint64_t tag, const qf_function *function, const void *payload, size_t size,
                      const qf_call_options *options);

/* Takes a call that has ended, in the order in which they end, and sets *tag. Waits for one, for `timeout_ns` at most (0: only looks).
 * Returns NULL if none has ended by then, or if none is outstanding. */
qf_outcome *qf_next(qf_queue *queue, uint64_t timeout_ns, uint64_t *tag);

/* A descriptor that is readable exactly while qf_next would find a call that has ended: for poll, epoll and event loops. It is the
 * queue's, which closes it when it is freed; only wait for it, never read it. -1: the system gives none. */
int qf_queue_fd(qf_queue *queue);

/* Asks the router to stop the call, and returns at once. The call still ends, as QF_CANCELLED or with an answer that was faster, and is
 * taken with qf_next. Does nothing if there is none with this tag. */
void qf_cancel(qf_queue *queue, uint64_t tag);

/* Calls in the queue: on their way, or ended and not taken. */
size_t qf_outstanding(const qf_queue *queue);

void qf_outcome_free(qf_outcome *outcome);

/* The word for a status, as in docs/spec/wire.md, and what it means in one sentence. NULL: there is no such status. Not to be freed. */
const char *qf_status_name(uint16_t status);
const char *qf_status_explain(uint16_t status);

/* ---- functions ------------------------------------------------------------------------------------------------------------------ */

/* Runs one call. `context` is what was given to qf_serve. Returns QF_OK: the reply is the result; or what qf_fail or qf_push_back
 * returned. Any other value is a function error too. */
typedef int32_t (*qf_handler)(void *context, const qf_invocation *invocation, qf_reply *reply);

/* Serves calls, one after the other on this thread, until the router says stop: the main loop of a function process. Returns NULL then,
 * after finishing what it had been sent; else an outcome of kind QF_SERVE_FAILED. */
qf_outcome *qf_serve(qf_handler handler, void *context);

/* qf_serve for a main that does nothing else: prints what went wrong on stderr and returns 1, else 0. */
int qf_serve_main(qf_handler handler, void *context);

/* Ends qf_serve of this process from another thread, or from the handler, after the call that runs; what was sent behind it goes to
 * another process. Waits for that call, except in the handler. For good: qf_serve returns at once from then on. A process that wants to
 * tidy up at SIGTERM blocks it, and calls this on a thread that waits for it with sigwait. */
void qf_stop_serving(void);

/* The caller's bytes, in place in shared memory. Valid until the handler returns. */
qf_bytes qf_invocation_payload(const qf_invocation *invocation);

/* The time until nobody waits any more; QF_FOREVER: there is no end; 0: it has passed. */
uint64_t qf_invocation_time_left_ns(const qf_invocation *invocation);

/* 1: nobody wants the answer any more. One load from shared memory, for use in loops. */
int qf_invocation_is_cancelled(const qf_invocation *invocation);

/* QF_LOW to QF_CRITICAL. */
int32_t qf_invocation_criticality(const qf_invocation *invocation);

/* 1 and *trace, if the caller traces; else 0. */
int qf_invocation_trace(const qf_invocation *invocation, qf_trace *trace);

/* 1 and 16 bytes at `key`, if the caller marks repetitions of one and the same call; else 0. */
int qf_invocation_idempotency_key(const qf_invocation *invocation, uint8_t *key);

/* The router's number of this invocation, as `quickfire inspect` shows it. */
uint64_t qf_invocation_id(const qf_invocation *invocation);

/* The most bytes a reply may have. A longer one is dropped, and the caller told that the result is too large. */
size_t qf_invocation_result_size_max(const qf_invocation *invocation);

/* Calls another function on behalf of this invocation, and waits: with its criticality and trace, and its time less `reserve_ns`
 * (QF_FOREVER: a twentieth, at least a millisecond). Of `options`, which may be NULL, only the flags and the key count. Never returns
 * NULL. */
qf_outcome *qf_nested(const qf_invocation *invocation, uint64_t reserve_ns, const qf_function *function, const void *payload,
                      size_t size, const qf_call_options *options);

/* Appends to the reply. */
void qf_reply_write(qf_reply *reply, const void *data, size_t size);

/* Appends `size` zeros to the reply, and returns where they are, to be written over. Valid until the reply is next changed.
 * NULL: there is no memory for it. */
uint8_t *qf_reply_space(qf_reply *reply, size_t size);

/* Makes the reply shorter. */
void qf_reply_truncate(qf_reply *reply, size_t size);

/* Makes the reply a function error with this text; to be returned by the handler. For bytes of one's own: qf_reply_write, and return
 * QF_FUNCTION_ERROR. */
int32_t qf_fail(qf_reply *reply, const char *text);

/* Makes the reply say that `downstream`, which the function calls, is overloaded, and how many of its refusals this stands for (1 to
 * 255; others count as the nearest); to be returned by the handler. The router calls the function less often for a while. */
int32_t qf_push_back(qf_reply *reply, const char *downstream, uint32_t severity);

#ifdef __cplusplus
}
#endif

#endif /* QUICKFIRE_H */
