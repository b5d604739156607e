/* A function for tests/c.rs: ends as its payload says, and echoes everything else. */
#include "quickfire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(qf_bytes payload, const char *word) {
    return payload.size == strlen(word) && memcmp(payload.data, word, payload.size) == 0;
}

static int32_t context(const qf_invocation *invocation, qf_reply *reply, int *calls) {
    char text[512];
    qf_trace trace;
    uint8_t key[16];
    memset(&trace, 0, sizeof trace);
    memset(key, 0, sizeof key);
    int has_trace = qf_invocation_trace(invocation, &trace);
    int has_key = qf_invocation_idempotency_key(invocation, key);
    uint64_t left_ns = qf_invocation_time_left_ns(invocation);
    int size = snprintf(text, sizeof text, "calls %d criticality %d trace %d:%d:%u key %d:%d left %d cancelled %d id %d max %d",
                        *calls, (int)qf_invocation_criticality(invocation), has_trace, trace.trace_id[15], (unsigned)trace.flags,
                        has_key, key[15], left_ns > 0 && left_ns <= 30000000000u, qf_invocation_is_cancelled(invocation),
                        qf_invocation_id(invocation) != 0, qf_invocation_result_size_max(invocation) >= 1048576);
    qf_reply_write(reply, text, (size_t)size);
    return QF_OK;
}

/* What is NULL is answered, and never followed. */
static int32_t nothing(const qf_invocation *invocation, qf_reply *reply) {
    qf_trace trace;
    uint8_t key[16];
    int wrong = qf_invocation_payload(NULL).size != 0 || qf_invocation_time_left_ns(NULL) != 0 || qf_invocation_is_cancelled(NULL) ||
                qf_invocation_criticality(NULL) != 0 || qf_invocation_trace(NULL, &trace) || qf_invocation_trace(invocation, NULL) ||
                qf_invocation_idempotency_key(NULL, key) || qf_invocation_idempotency_key(invocation, NULL) ||
                qf_invocation_id(NULL) != 0 || qf_invocation_result_size_max(NULL) != 0 || qf_reply_space(NULL, 1) != NULL ||
                qf_reply_space(reply, SIZE_MAX) != NULL;
    qf_reply_write(NULL, "x", 1);
    qf_reply_write(reply, NULL, 1);
    qf_reply_write(reply, NULL, 0);
    qf_reply_write(reply, "x", SIZE_MAX);
    qf_reply_truncate(NULL, 0);
    wrong = wrong || qf_fail(NULL, "x") != QF_FUNCTION_ERROR || qf_push_back(NULL, "x", 1) != QF_BACKPRESSURE;
    qf_outcome *outcome = qf_nested(NULL, QF_FOREVER, NULL, NULL, 0, NULL);
    wrong = wrong || outcome == NULL || outcome->kind != QF_INVALID_ARGUMENT;
    qf_outcome_free(outcome);
    outcome = qf_serve(NULL, NULL);
    wrong = wrong || outcome == NULL || outcome->kind != QF_INVALID_ARGUMENT;
    qf_outcome_free(outcome);
    qf_reply_write(reply, wrong ? "wrong" : "right", 5);
    return QF_OK;
}

/* Calls `context` of another process of this function, with all that this call has. */
static int32_t nested(const qf_invocation *invocation, qf_reply *reply) {
    static qf_client *client;
    static qf_function *function;
    qf_outcome *error = NULL;
    if (client == NULL) client = qf_connect(getenv("ROUTER"), NULL, &error);
    if (client != NULL && function == NULL) function = qf_find(client, "c", &error);
    if (function == NULL) {
        int32_t code = qf_fail(reply, error->message);
        qf_outcome_free(error);
        return code;
    }
    qf_outcome *outcome = qf_nested(invocation, QF_FOREVER, function, "context", 7, NULL);
    qf_reply_write(reply, outcome->payload.data, outcome->payload.size);
    if (outcome->kind != QF_OK) qf_reply_write(reply, outcome->message, strlen(outcome->message));
    qf_outcome_free(outcome);
    return QF_OK;
}

static int32_t handle(void *counter, const qf_invocation *invocation, qf_reply *reply) {
    int *calls = (int *)counter;
    ++*calls;
    qf_bytes payload = qf_invocation_payload(invocation);
    if (is(payload, "context")) return context(invocation, reply, calls);
    if (is(payload, "nothing")) return nothing(invocation, reply);
    if (is(payload, "nested")) return nested(invocation, reply);
    if (is(payload, "fail")) return qf_fail(reply, "no such user");
    if (is(payload, "push back")) return qf_push_back(reply, "data base", 3);
    if (is(payload, "die")) abort();
    if (is(payload, "pid")) {
        char text[32];
        qf_reply_write(reply, text, (size_t)snprintf(text, sizeof text, "%d", (int)getpid()));
        return QF_OK;
    }
    if (is(payload, "code")) {
        qf_reply_write(reply, "\0\xff", 2);
        return 77;
    }
    if (is(payload, "too large")) {
        qf_reply_space(reply, qf_invocation_result_size_max(invocation) + 1);
        return QF_OK;
    }
    if (is(payload, "serve")) {
        qf_outcome *outcome = qf_serve(handle, NULL);
        qf_reply_write(reply, outcome->message, strlen(outcome->message));
        qf_outcome_free(outcome);
        return QF_OK;
    }
    if (is(payload, "stop")) {
        qf_stop_serving();
        qf_reply_write(reply, "stopping", 8);
        return QF_OK;
    }
    if (is(payload, "wait")) {
        puts("began");
        fflush(stdout);
        while (!qf_invocation_is_cancelled(invocation)) usleep(1000);
        puts("noticed");
        fflush(stdout);
        return QF_OK;
    }
    uint8_t *space = qf_reply_space(reply, payload.size + 10);
    if (payload.size != 0) memcpy(space, payload.data, payload.size);
    qf_reply_truncate(reply, payload.size);
    return QF_OK;
}

int main(void) {
    int calls = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    int code = qf_serve_main(handle, &calls);
    printf("served %d calls\n", calls);
    return code;
}
