/* Runtime `native` in C: content moderation that knows a message again when only a few words of it were changed.
 *
 * When it starts, it reads messages that were judged before ($MESSAGES, or examples/functions/samples/messages.tsv from where the router
 * was started: a word, a tab, a text on each line) and makes a SimHash of each: 64 bits that differ in few places where texts do. A call then compares one number with each of them, and
 * answers with the nearest message in JSON.
 *
 *     quickfire invoke duplicates --data "Congratulations! You have won a free cruise. Claim the prize now"
 */
#include "quickfire.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 100000, LINE_SIZE_MAX = 4096, LETTERS_MAX = 65536, SHINGLE = 4 };

/* Of 64 bits; unrelated texts differ in half of them. */
enum { SAME_DISTANCE_MAX = 20 };

typedef struct {
    uint64_t hash;
    char *label;
    char *text;
} message;

typedef struct {
    message *messages;
    size_t count;
} model;

/* FNV-1a, and a last mixing, because SimHash needs every bit to depend on every letter. */
static uint64_t hash_of(const char *letters, size_t size) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)letters[i]) * 1099511628211u;
    hash ^= hash >> 33;
    hash *= 0xff51afd7ed558ccdu;
    return hash ^ hash >> 33;
}

/* Each run of four letters votes for each bit; case, spaces and signs have no vote. */
static uint64_t simhash(const uint8_t *text, size_t size) {
    static char letters[LETTERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < size && count < LETTERS_MAX; i++) {
        if (isalnum(text[i])) letters[count++] = (char)tolower(text[i]);
    }
    int votes[64] = {0};
    for (size_t at = 0; at + SHINGLE <= count; at++) {
        uint64_t hash = hash_of(letters + at, SHINGLE);
        for (int bit = 0; bit < 64; bit++) votes[bit] += hash >> bit & 1 ? 1 : -1;
    }
    uint64_t result = 0;
    for (int bit = 0; bit < 64; bit++) result |= (uint64_t)(votes[bit] > 0) << bit;
    return result;
}

static int distance(uint64_t one, uint64_t other) {
    int count = 0;
    for (uint64_t differing = one ^ other; differing != 0; differing &= differing - 1) count++;
    return count;
}

static char *copy_of(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    if (copy == NULL) exit(1);
    return strcpy(copy, text);
}

static model learn(const char *file_name) {
    model learned = {malloc(MESSAGES_MAX * sizeof(message)), 0};
    FILE *file = fopen(file_name, "r");
    if (file == NULL || learned.messages == NULL) {
        perror(file_name);
        exit(1);
    }
    char line[LINE_SIZE_MAX];
    while (learned.count < MESSAGES_MAX && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (tab == NULL) continue;
        *tab = 0;
        uint64_t hash = simhash((const uint8_t *)tab + 1, strlen(tab + 1));
        learned.messages[learned.count++] = (message){hash, copy_of(line), copy_of(tab + 1)};
    }
    fclose(file);
    return learned;
}

/* A text in JSON. What stands in the file of messages is UTF-8 already. */
static void write_json(qf_reply *reply, const char *text) {
    qf_reply_write(reply, "\"", 1);
    for (; *text != 0; text++) {
        char escaped[8];
        int is_plain = (uint8_t)*text >= 0x20 && *text != '"' && *text != '\\';
        int size = snprintf(escaped, sizeof escaped, is_plain ? "%c" : "\\u%04x", *text);
        qf_reply_write(reply, escaped, (size_t)size);
    }
    qf_reply_write(reply, "\"", 1);
}

static int32_t handle(void *context, const qf_invocation *invocation, qf_reply *reply) {
    const model *learned = context;
    qf_bytes payload = qf_invocation_payload(invocation);
    uint64_t hash = simhash(payload.data, payload.size);
    if (hash == 0) return qf_fail(reply, "the text has less than four letters");
    const message *nearest = NULL;
    int least = 65;
    for (size_t i = 0; i < learned->count; i++) {
        int found = distance(hash, learned->messages[i].hash);
        if (found < least) {
            least = found;
            nearest = &learned->messages[i];
        }
    }
    if (nearest == NULL) return qf_fail(reply, "there are no messages to compare with");
    char text[96];
    const char *is_same = least <= SAME_DISTANCE_MAX ? "true" : "false";
    int size = snprintf(text, sizeof text, "{\"duplicate\": %s, \"distance\": %d, \"nearest\": ", is_same, least);
    qf_reply_write(reply, text, (size_t)size);
    write_json(reply, nearest->text);
    qf_reply_write(reply, ", \"judged\": ", 12);
    write_json(reply, nearest->label);
    qf_reply_write(reply, "}", 1);
    return QF_OK;
}

int main(void) {
    const char *file_name = getenv("MESSAGES");
    model learned = learn(file_name != NULL ? file_name : "examples/functions/samples/messages.tsv");
    fprintf(stderr, "learned %zu messages\n", learned.count);
    return qf_serve_main(handle, &learned);
}
