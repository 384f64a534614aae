/* Callbacks for test_c_scheduler.c: one that keeps its answer and can be waited for, and one that
 * stands still until a gate is opened. Plain C99 with POSIX threads. Not: any check.
 */
#ifndef CSRM_TESTS_CPP_C_REQUESTS_H_
#define CSRM_TESTS_CPP_C_REQUESTS_H_

#include <pthread.h>
#include <string.h>

#include "csrm/csrm.h"

/* What a callback was given, and how often it was called. */
typedef struct answer {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int n_calls;
  int code;
  char message[256];
  csrm_score_result result;
  csrm_turn_score turns[4];
  csrm_rule_score rules[4];
} answer;

static void answer_init(answer* a) {
  memset(a, 0, sizeof(*a));
  pthread_mutex_init(&a->mutex, NULL);
  pthread_cond_init(&a->changed, NULL);
}

static void answer_destroy(answer* a) {
  pthread_cond_destroy(&a->changed);
  pthread_mutex_destroy(&a->mutex);
}

static void on_answer(void* user_data, int code, const csrm_score_result* result) {
  answer* a = (answer*)user_data;
  pthread_mutex_lock(&a->mutex);
  ++a->n_calls;
  a->code = code;
  a->result = *result;
  if (code != CSRM_OK) strncpy(a->message, csrm_last_error(), sizeof(a->message) - 1);
  if (result->n_turns <= 4 && result->n_rules <= 4) {
    if (result->n_turns > 0) memcpy(a->turns, result->turns, result->n_turns * sizeof(a->turns[0]));
    if (result->n_rules > 0) memcpy(a->rules, result->rules, result->n_rules * sizeof(a->rules[0]));
  }
  pthread_cond_signal(&a->changed);
  pthread_mutex_unlock(&a->mutex);
}

static void answer_wait(answer* a) {
  pthread_mutex_lock(&a->mutex);
  while (a->n_calls == 0) pthread_cond_wait(&a->changed, &a->mutex);
  pthread_mutex_unlock(&a->mutex);
}

/* Callbacks that stand still until it is opened. A scheduler of one engine call at a time has two
 * threads; while both stand in such callbacks, whatever else was submitted waits. */
typedef struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int n_inside, is_open;
} gate;

static void gate_init(gate* g) {
  memset(g, 0, sizeof(*g));
  pthread_mutex_init(&g->mutex, NULL);
  pthread_cond_init(&g->changed, NULL);
}

static void gate_destroy(gate* g) {
  pthread_cond_destroy(&g->changed);
  pthread_mutex_destroy(&g->mutex);
}

static void stand_still(void* user_data, int code, const csrm_score_result* result) {
  gate* g = (gate*)user_data;
  (void)code;
  (void)result;
  pthread_mutex_lock(&g->mutex);
  ++g->n_inside;
  pthread_cond_broadcast(&g->changed);
  while (!g->is_open) pthread_cond_wait(&g->changed, &g->mutex);
  pthread_mutex_unlock(&g->mutex);
}

static void gate_open(gate* g) {
  pthread_mutex_lock(&g->mutex);
  g->is_open = 1;
  pthread_cond_broadcast(&g->changed);
  pthread_mutex_unlock(&g->mutex);
}

#endif /* CSRM_TESTS_CPP_C_REQUESTS_H_ */
