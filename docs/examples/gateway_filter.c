/* A gateway filter in C99: chat bodies in, allow, block or unknown out, under one config and within
 * a deadline. Fails closed: only an explicit "compliant" is an allow.
 *
 * Not: a gateway. Bodies come one a line from a file or the standard input, as they would come from
 * requests; decisions go to the standard output, why a body has none to the standard error.
 *
 *   cc -std=c99 gateway_filter.c $(pkg-config --cflags --libs csrm) -o gateway_filter
 *   ./gateway_filter 200 "$(pkg-config --variable=artifact_dir csrm)" policy.json bodies.jsonl
 *
 * 200 is the deadline of a body in milliseconds; policy.json is a config as JSON (`csrm config json
 * policy.yaml` writes one). A line of the output: number of the body, decision, reward, compliance,
 * name of the error or "-". Exit status: 0 every body may pass, 1 some may not, 2 the filter cannot
 * work.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csrm/csrm.h"

#define MAX_BODY_BYTES ((size_t)16 << 20)

enum decision { ALLOW, BLOCK, UNKNOWN };
static const char* const kDecisions[] = {"allow", "block", "unknown"};

typedef struct filter {
  csrm_scorer* scorer;
  csrm_scheduler* scheduler;
  csrm_config* config;
  int64_t timeout_ms;
} filter;

/* What has gone wrong must be said at once: the next call of csrm may replace the message. */
static int complain(const char* what) {
  fprintf(stderr, "gateway_filter: %s: %s\n", what, csrm_last_error());
  return 0;
}

/* The whole file, malloced; NULL if it cannot be read. */
static char* read_file(const char* path, size_t* n_bytes) {
  FILE* file = fopen(path, "rb");
  char* text = NULL;
  long size = -1;
  if (file == NULL) return NULL;
  if (fseek(file, 0, SEEK_END) == 0) size = ftell(file);
  if (size >= 0 && fseek(file, 0, SEEK_SET) == 0) text = (char*)malloc((size_t)size + 1);
  if (text != NULL && fread(text, 1, (size_t)size, file) != (size_t)size) {
    free(text);
    text = NULL;
  }
  fclose(file);
  *n_bytes = size >= 0 ? (size_t)size : 0;
  return text;
}

static void filter_close(filter* f) {
  csrm_scheduler_destroy(f->scheduler);
  csrm_config_destroy(f->config);
  csrm_scorer_destroy(f->scorer);
}

/* Loads the model and the config. Returns 0 if there is nothing to filter with. */
static int filter_open(filter* f, const char* timeout_ms, const char* artifact_dir,
                       const char* config_path) {
  size_t n_bytes = 0;
  char* json;
  char* end = NULL;
  int code;
  f->timeout_ms = strtol(timeout_ms, &end, 10);
  if (end == timeout_ms || *end != '\0' || f->timeout_ms < 0) {
    fprintf(stderr, "gateway_filter: the deadline must be a number of milliseconds\n");
    return 0;
  }
  if (csrm_abi_version() != CSRM_ABI_VERSION) {
    fprintf(stderr, "gateway_filter: libcsrm has ABI %u, csrm.h has %u\n",
            (unsigned)csrm_abi_version(), (unsigned)CSRM_ABI_VERSION);
    return 0;
  }
  if (csrm_scorer_create(artifact_dir, NULL, &f->scorer) != CSRM_OK) return complain("model");
  if (csrm_scheduler_create(f->scorer, NULL, &f->scheduler) != CSRM_OK) return complain("threads");
  json = read_file(config_path, &n_bytes);
  if (json == NULL) {
    fprintf(stderr, "gateway_filter: %s: %s\n", config_path, strerror(errno));
    return 0;
  }
  code = csrm_config_parse_json(json, n_bytes, &f->config);
  free(json);
  return code == CSRM_OK ? 1 : complain("config");
}

/* Encodes the rules before traffic comes: they are cached, so that the first body need not wait. */
static int filter_warm(const filter* f) {
  csrm_conversation* conversation = NULL;
  csrm_score_result result;
  int code = csrm_conversation_create(&conversation);
  csrm_score_result_init(&result);
  if (code == CSRM_OK) code = csrm_conversation_add_turn(conversation, CSRM_ROLE_USER, "Hello", 5);
  if (code == CSRM_OK) code = csrm_score(f->scorer, f->config, conversation, NULL, &result);
  csrm_conversation_destroy(conversation);
  return code == CSRM_OK ? 1 : complain("config");
}

/* May be called from several threads at once. */
static enum decision decide(const filter* f, const char* body, size_t n_bytes,
                            csrm_score_result* result, int* code) {
  csrm_conversation* conversation = NULL;
  csrm_score_result_init(result);
  *code = csrm_conversation_parse_json(body, n_bytes, &conversation);
  if (*code == CSRM_OK) {
    *code =
        csrm_scheduler_score(f->scheduler, f->config, conversation, NULL, f->timeout_ms, result);
  }
  csrm_conversation_destroy(conversation);
  if (*code == CSRM_OK && result->verdict == CSRM_VERDICT_COMPLIANT) return ALLOW;
  if (*code == CSRM_OK && result->verdict == CSRM_VERDICT_VIOLATION) return BLOCK;
  return UNKNOWN; /* whatever else comes, also from a newer library */
}

/* The next line without its end, in *line, which grows. Returns its bytes, -1 at the end of the
 * file, -2 for a line over the limit (it is skipped) or without memory for it. */
static long read_line(FILE* file, char** line, size_t* capacity) {
  size_t n = 0;
  int too_long = 0;
  int c = getc(file);
  if (c == EOF) return -1;
  for (; c != EOF && c != '\n'; c = getc(file)) {
    if (n == *capacity && !too_long) {
      const size_t wanted = *capacity == 0 ? 4096 : *capacity * 2;
      char* longer = wanted > MAX_BODY_BYTES ? NULL : (char*)realloc(*line, wanted);
      if (longer == NULL) {
        too_long = 1;
      } else {
        *line = longer;
        *capacity = wanted;
      }
    }
    if (!too_long) (*line)[n++] = (char)c;
  }
  return too_long ? -2 : (long)n;
}

static int filter_bodies(const filter* f, FILE* bodies) {
  char* line = NULL;
  size_t capacity = 0;
  long number = 0, n_bytes;
  int all_pass = 1;
  while ((n_bytes = read_line(bodies, &line, &capacity)) != -1) {
    csrm_score_result result;
    int code = CSRM_ERROR_LIMIT_EXCEEDED;
    enum decision decision = UNKNOWN;
    ++number;
    csrm_score_result_init(&result);
    if (n_bytes >= 0) {
      decision = decide(f, line != NULL ? line : "", (size_t)n_bytes, &result, &code);
      if (code != CSRM_OK) complain("no decision"); /* never contains text of the body */
    }
    printf("%ld %s %.9g %.9g %s\n", number, kDecisions[decision], (double)result.reward,
           (double)result.compliance, code == CSRM_OK ? "-" : csrm_code_name(code));
    all_pass = all_pass && decision == ALLOW;
  }
  free(line);
  if (ferror(bodies) || fflush(stdout) != 0) {
    fprintf(stderr, "gateway_filter: %s\n", strerror(errno));
    return 2;
  }
  return all_pass ? 0 : 1;
}

int main(int argc, char** argv) {
  filter f = {NULL, NULL, NULL, 0};
  FILE* bodies = stdin;
  int status = 2;
  if (argc != 4 && argc != 5) {
    fprintf(stderr, "usage: gateway_filter TIMEOUT_MS MODEL_FOLDER CONFIG.json [BODIES.jsonl]\n");
    return 2;
  }
  if (argc == 5 && (bodies = fopen(argv[4], "rb")) == NULL) {
    fprintf(stderr, "gateway_filter: %s: %s\n", argv[4], strerror(errno));
    return 2;
  }
  if (filter_open(&f, argv[1], argv[2], argv[3]) && filter_warm(&f))
    status = filter_bodies(&f, bodies);
  filter_close(&f);
  if (bodies != stdin) fclose(bodies);
  return status;
}
