/* A caller for tests/c.rs, in what C and C++ have in common. Usage: caller URL [PAYLOAD].  Ends with 0, or says which line does not hold. */
#include "quickfire.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "line %d does not hold: %s\n", __LINE__, #condition); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

#define SECOND UINT64_C(1000000000)
enum { THREADS = 4, CALLS_EACH = 500 };

static qf_client *client;
static qf_function *function;

static int says(const qf_outcome *outcome, const char *text) {
    return outcome->payload.size == strlen(text) && memcmp(outcome->payload.data, text, outcome->payload.size) == 0;
}

/* Calls with a text and checks how it ends. */
static void ends(const char *payload, int32_t kind, uint16_t status, uint8_t fault, uint8_t retry, const char *text) {
    qf_outcome *outcome = qf_call(function, payload, strlen(payload), NULL);
    if (outcome->kind != kind || outcome->status != status || outcome->fault != fault || outcome->retry != retry || !says(outcome, text)) {
        fprintf(stderr, "`%s` ends with kind %d, status %d, fault %d, retry %d, %d bytes: %s\n", payload, (int)outcome->kind,
                outcome->status, outcome->fault, outcome->retry, (int)outcome->payload.size, outcome->message);
        exit(1);
    }
    CHECK(outcome->message != NULL);
    qf_outcome_free(outcome);
}

static void options_are_taken(void) {
    qf_call_options options = QF_CALL_OPTIONS_INIT;
    options.timeout_ns = 30 * SECOND;
    options.criticality = QF_HIGH;
    options.flags = QF_HAS_TRACE | QF_HAS_IDEMPOTENCY_KEY | QF_WANT_TIMINGS;
    options.trace.trace_id[15] = 7;
    options.trace.flags = 1;
    options.idempotency_key[15] = 9;
    qf_outcome *outcome = qf_call(function, "context", 7, &options);
    CHECK(outcome->kind == QF_OK && outcome->has_timings == 1);
    CHECK(outcome->timings.started_ns <= outcome->timings.finished_ns && outcome->timings.finished_ns != QF_FOREVER);
    char text[256];
    CHECK(outcome->payload.size < sizeof text);
    memcpy(text, outcome->payload.data, outcome->payload.size);
    text[outcome->payload.size] = 0;
    CHECK(strstr(text, "criticality 2 trace 1:7:1 key 1:9 left 1 cancelled 0 id 1 max 1") != NULL);
    qf_outcome_free(outcome);

    /* While one of the two processes has died and is started again, nobody is there to run the nested call. */
    do {
        options.idempotency_key[15]++;
        outcome = qf_call(function, "nested", 6, &options);
        CHECK(outcome->kind == QF_OK && outcome->payload.size < sizeof text);
        memcpy(text, outcome->payload.data, outcome->payload.size);
        text[outcome->payload.size] = 0;
        if (strstr(text, "would_deadlock") == NULL) break;
        qf_outcome_free(outcome);
        usleep(10000);
    } while (1);
    CHECK(strstr(text, "criticality 2 trace 1:7:1 key 0:0 left 1") != NULL);
    qf_outcome_free(outcome);
}

static void is_invalid(qf_outcome *outcome, const char *word) {
    CHECK(outcome != NULL && outcome->kind == QF_INVALID_ARGUMENT && outcome->fault == QF_FAULT_CALLER);
    CHECK(outcome->status == QF_NO_STATUS && outcome->payload.data == NULL && outcome->payload.size == 0);
    if (strstr(outcome->message, word) == NULL) {
        fprintf(stderr, "%s: not in `%s`\n", word, outcome->message);
        exit(1);
    }
    qf_outcome_free(outcome);
}

static void wrong_arguments_are_named(void) {
    qf_outcome *error = NULL;
    qf_call_options options = QF_CALL_OPTIONS_INIT;
    is_invalid(qf_call(NULL, "x", 1, NULL), "`function`");
    is_invalid(qf_call(function, NULL, 1, NULL), "`payload`");
    is_invalid(qf_call(function, "x", SIZE_MAX, NULL), "`payload`");
    options.struct_size = 8;
    is_invalid(qf_call(function, "x", 1, &options), "`struct_size` of qf_call_options");
    options.struct_size = sizeof options;
    options.criticality = 4;
    is_invalid(qf_call(function, "x", 1, &options), "`criticality`");
    options.criticality = -1;
    is_invalid(qf_call(function, "x", 1, &options), "`criticality`");
    options.criticality = QF_NORMAL;
    options.flags = 1u << 31;
    is_invalid(qf_call(function, "x", 1, &options), "`flags`");
    is_invalid(qf_submit(NULL, 0, function, "x", 1, NULL), "`queue`");
    is_invalid(qf_next(NULL, 0, NULL), "`queue`");
    qf_cancel(NULL, 0);
    CHECK(qf_outstanding(NULL) == 0);

    CHECK(qf_find(NULL, "x", &error) == NULL);
    is_invalid(error, "`client`");
    CHECK(qf_find(client, NULL, &error) == NULL);
    is_invalid(error, "`name`");
    CHECK(qf_find(client, "", &error) == NULL);
    is_invalid(error, "name");
    CHECK(qf_find(client, "\xff", &error) == NULL);
    is_invalid(error, "UTF-8");
    CHECK(qf_find(client, "x", NULL) == NULL);
    CHECK(qf_connect("http://a", NULL, &error) == NULL);
    is_invalid(error, "http://a");
    qf_connect_options connect = QF_CONNECT_OPTIONS_INIT;
    connect.struct_size = 0;
    CHECK(qf_connect(NULL, &connect, &error) == NULL);
    is_invalid(error, "`struct_size` of qf_connect_options");

    qf_client_free(NULL);
    qf_function_free(NULL);
    qf_queue_free(NULL);
    qf_outcome_free(NULL);
}

static void connections_that_cannot_be_are_told(void) {
    qf_outcome *error = NULL;
    CHECK(qf_connect("unix:///nowhere/router.sock", NULL, &error) == NULL);
    CHECK(error->kind == QF_CONNECT_FAILED && error->fault == QF_FAULT_ROUTER && error->retry == QF_RETRY_SAFE);
    CHECK(strstr(error->message, "/nowhere/router.sock") != NULL);
    qf_outcome_free(error);
    CHECK(qf_find(client, "nobody", &error) == NULL);
    CHECK(error->kind == QF_REFUSED && error->status == 16 && error->fault == QF_FAULT_CALLER);
    CHECK(strcmp(qf_status_name(error->status), "unknown_function") == 0 && strlen(qf_status_explain(error->status)) > 20);
    CHECK(qf_status_name(60000) == NULL && qf_status_explain(60000) == NULL);
    qf_outcome_free(error);
}

static void payloads_of_every_size_come_back(void) {
    static const size_t sizes[] = {0, 1, 100, 4096, 70000, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *payload = (uint8_t *)malloc(sizes[i] + 1);
        for (size_t at = 0; at < sizes[i]; at++) payload[at] = (uint8_t)(at * 31);
        qf_outcome *outcome = qf_call(function, payload, sizes[i], NULL);
        CHECK(outcome->kind == QF_OK && outcome->status == 0 && outcome->started == QF_STARTED && outcome->payload.size == sizes[i]);
        CHECK(sizes[i] == 0 || memcmp(outcome->payload.data, payload, sizes[i]) == 0);
        qf_outcome_free(outcome);
        free(payload);
    }
    uint8_t *huge = (uint8_t *)calloc(3, 1 << 20);
    qf_outcome *outcome = qf_call(function, huge, 3 << 20, NULL);
    CHECK(outcome->kind == QF_REFUSED && outcome->status == 23 && outcome->started == QF_NOT_STARTED);
    qf_outcome_free(outcome);
    free(huge);
}

static void deadlines_and_cancelling_stop_what_runs(void) {
    qf_call_options options = QF_CALL_OPTIONS_INIT;
    options.timeout_ns = SECOND / 2;
    qf_outcome *outcome = qf_call(function, "wait", 4, &options);
    CHECK(outcome->kind == QF_EXPIRED && outcome->retry_after_ns == QF_FOREVER);
    qf_outcome_free(outcome);

    qf_queue *queue = qf_queue_new();
    uint64_t tag = 0;
    CHECK(qf_submit(queue, 7, function, "wait", 4, NULL) == NULL);
    is_invalid(qf_submit(queue, 7, function, "wait", 4, NULL), "`tag`");
    CHECK(qf_outstanding(queue) == 1 && qf_next(queue, 0, &tag) == NULL && tag == 0);
    qf_cancel(queue, 8);
    qf_cancel(queue, 7);
    outcome = qf_next(queue, QF_FOREVER, &tag);
    CHECK(outcome->kind == QF_CANCELLED && outcome->fault == QF_FAULT_CALLER && tag == 7);
    qf_outcome_free(outcome);
    CHECK(qf_outstanding(queue) == 0 && qf_next(queue, QF_FOREVER, &tag) == NULL);
    qf_queue_free(queue);
}

/* They are not there before, and are cancelled with their queue. */
static void calls_that_start_later_wait(void) {
    qf_queue *queue = qf_queue_new();
    qf_call_options options = QF_CALL_OPTIONS_INIT;
    uint64_t tag = 0;
    options.start_after_ns = 3600 * SECOND;
    CHECK(qf_submit(queue, 7, function, "x", 1, &options) == NULL);
    CHECK(qf_next(queue, SECOND / 100, &tag) == NULL && qf_outstanding(queue) == 1);
    qf_queue_free(queue);
}

/* Takes its share of the calls of all threads from the queue that they share. */
static void *works(void *argument) {
    qf_queue *queue = (qf_queue *)argument;
    static uint64_t tags; /* given out by an atomic of the compiler's, which C and C++ share */
    uint64_t sum = 0;
    for (int i = 0; i < CALLS_EACH; i++) {
        uint64_t tag = __atomic_add_fetch(&tags, 1, __ATOMIC_RELAXED);
        CHECK(qf_submit(queue, tag, function, &tag, sizeof tag, NULL) == NULL);
    }
    for (int i = 0; i < CALLS_EACH; i++) {
        uint64_t tag = 0, echoed = 1;
        qf_outcome *outcome = qf_next(queue, QF_FOREVER, &tag);
        CHECK(outcome != NULL && outcome->kind == QF_OK && outcome->payload.size == sizeof echoed);
        memcpy(&echoed, outcome->payload.data, sizeof echoed);
        CHECK(echoed == tag);
        sum += tag;
        qf_outcome_free(outcome);
    }
    return (void *)(uintptr_t)sum;
}

static void threads_share_a_queue(void) {
    qf_queue *queue = qf_queue_new();
    pthread_t threads[THREADS];
    uint64_t sum = 0, count = THREADS * CALLS_EACH;
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, works, queue) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *part;
        CHECK(pthread_join(threads[i], &part) == 0);
        sum += (uint64_t)(uintptr_t)part;
    }
    CHECK(sum == count * (count + 1) / 2 && qf_outstanding(queue) == 0); /* each answer was taken once */
    qf_queue_free(queue);
}

static int is_readable(int fd, int timeout_ms) {
    struct pollfd waited = {fd, POLLIN, 0};
    return poll(&waited, 1, timeout_ms) == 1 && (waited.revents & POLLIN) != 0;
}

/* The descriptor is readable from the first end until the last that is taken, whenever it was asked for. */
static void event_loops_wait_for_a_descriptor(void) {
    CHECK(qf_queue_fd(NULL) == -1);
    for (int is_late = 0; is_late <= 1; is_late++) {
        qf_queue *queue = qf_queue_new();
        int fd = is_late ? -1 : qf_queue_fd(queue);
        CHECK(is_late || (fd >= 0 && qf_queue_fd(queue) == fd && !is_readable(fd, 0)));
        uint64_t tag;
        for (tag = 0; tag < 3; tag++) CHECK(qf_submit(queue, tag, function, "x", 1, NULL) == NULL);
        if (is_late) {
            qf_outcome *first = qf_next(queue, QF_FOREVER, &tag);
            CHECK(first->kind == QF_OK);
            qf_outcome_free(first);
            fd = qf_queue_fd(queue);
        }
        while (qf_outstanding(queue) > 0) {
            CHECK(is_readable(fd, -1));
            qf_outcome *outcome = qf_next(queue, 0, &tag);
            CHECK(outcome != NULL && outcome->kind == QF_OK);
            qf_outcome_free(outcome);
        }
        CHECK(!is_readable(fd, 0));
        qf_queue_free(queue);
    }
}

int main(int count, char **arguments) {
    qf_outcome *error = NULL;
    qf_connect_options options = QF_CONNECT_OPTIONS_INIT;
    options.connect_timeout_ns = 10 * SECOND;
    CHECK(count == 2 || count == 3);
    int is_shm = strncmp(arguments[1], "shm:", 4) == 0;
    client = qf_connect(arguments[1], &options, &error);
    CHECK(client != NULL && error == NULL);
    function = qf_find(client, "c", &error);
    CHECK(function != NULL && error == NULL);

    if (count == 3) { /* the router dies while this waits */
        qf_outcome *lost = qf_call(function, arguments[2], strlen(arguments[2]), NULL);
        CHECK(lost->kind == QF_DISCONNECTED && lost->started == QF_MAYBE_STARTED && lost->status == QF_NO_STATUS);
        CHECK(lost->fault == QF_FAULT_ROUTER && lost->retry == QF_RETRY_IF_IDEMPOTENT);
        qf_outcome_free(lost);
        qf_function_free(function);
        qf_client_free(client);
        return 0;
    }

    payloads_of_every_size_come_back();
    ends("fail", QF_FUNCTION_ERROR, 1, QF_FAULT_FUNCTION, QF_RETRY_IF_IDEMPOTENT, "no such user");
    ends("push back", QF_BACKPRESSURE, 2, QF_FAULT_NOBODY, QF_RETRY_IF_IDEMPOTENT, "data?base");
    ends("too large", QF_WORKER_LOST, 66, QF_FAULT_FUNCTION, QF_RETRY_POINTLESS, "");
    ends("nothing", QF_OK, 0, QF_FAULT_NOBODY, QF_RETRY_POINTLESS, "right");
    ends("serve", QF_OK, 0, QF_FAULT_NOBODY, QF_RETRY_POINTLESS, "this process serves already, on another thread");
    ends("die", QF_WORKER_LOST, 64, QF_FAULT_WORKER, QF_RETRY_IF_IDEMPOTENT, "");
    qf_outcome *outcome = qf_call(function, "code", 4, NULL);
    CHECK(outcome->kind == QF_FUNCTION_ERROR && outcome->payload.size == 2 && memcmp(outcome->payload.data, "\0\xff", 2) == 0);
    qf_outcome_free(outcome);
    options_are_taken();
    wrong_arguments_are_named();
    connections_that_cannot_be_are_told();
    deadlines_and_cancelling_stop_what_runs();
    if (!is_shm) calls_that_start_later_wait(); /* client rings do not carry them */
    event_loops_wait_for_a_descriptor();
    threads_share_a_queue();

    qf_client_free(client); /* its function keeps the connection */
    ends("last", QF_OK, 0, QF_FAULT_NOBODY, QF_RETRY_POINTLESS, "last");
    qf_function_free(function);
    return 0;
}
