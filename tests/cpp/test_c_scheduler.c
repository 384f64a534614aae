/* The scheduler through the C API, as a C99 program uses it: answers by callback and by waiting,
 * cancellation, deadlines, bounds, shutdown, and misuse. Links nothing but libcsrm.
 * Not: the order or the scores of requests (test_job_queue.cc, tests/python/test_scheduler.py).
 */
#define _POSIX_C_SOURCE 200809L

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "c_requests.h"
#include "csrm/csrm.h"

static int n_checks, n_failures, n_skipped;

#define CHECK(condition)                                                   \
  do {                                                                     \
    ++n_checks;                                                            \
    if (!(condition)) {                                                    \
      ++n_failures;                                                        \
      printf("%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
    }                                                                      \
  } while (0)

#define NO_DEADLINE ((int64_t)-1)

static void sleep_ms(long ms) {
  struct timespec time = {0, 0};
  time.tv_nsec = ms * 1000000;
  nanosleep(&time, NULL);
}

static csrm_config* config_of(const char* rule) {
  csrm_config* config = NULL;
  CHECK(csrm_config_create(0.5, &config) == CSRM_OK);
  CHECK(csrm_config_add_rule(config, "a", 1, rule, strlen(rule)) == CSRM_OK);
  CHECK(csrm_config_add_rule(config, NULL, 0, "Be polite.", 10) == CSRM_OK);
  return config;
}

static csrm_conversation* conversation_of(const char* text) {
  csrm_conversation* conversation = NULL;
  CHECK(csrm_conversation_create(&conversation) == CSRM_OK);
  CHECK(csrm_conversation_add_turn(conversation, CSRM_ROLE_USER, "hello", 5) == CSRM_OK);
  CHECK(csrm_conversation_add_turn(conversation, CSRM_ROLE_ASSISTANT, text, strlen(text)) ==
        CSRM_OK);
  return conversation;
}

/* What the tests with a model share. */
typedef struct model {
  csrm_scorer* scorer;
  csrm_config* config;
  csrm_conversation* conversation;
} model;

static csrm_scheduler* scheduler_of(const model* m) {
  csrm_scheduler* scheduler = NULL;
  CHECK(csrm_scheduler_create(m->scorer, NULL, &scheduler) == CSRM_OK);
  return scheduler;
}

/* Returns when both threads of the scheduler stand in callbacks. */
static void occupy(csrm_scheduler* scheduler, const model* m, gate* g) {
  int i;
  for (i = 1; i <= 2; ++i) {
    CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, NO_DEADLINE,
                                stand_still, g, NULL) == CSRM_OK);
    pthread_mutex_lock(&g->mutex);
    while (g->n_inside < i) pthread_cond_wait(&g->changed, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
  }
}

static void test_c_scheduler_null_arguments_are_refused(void) {
  csrm_scheduler* scheduler = (csrm_scheduler*)&n_checks;
  csrm_scheduler_stats stats;
  csrm_score_result result;
  csrm_score_result_init(&result);
  result.verdict = CSRM_VERDICT_COMPLIANT;
  csrm_scheduler_stats_init(&stats);
  CHECK(csrm_scheduler_create(NULL, NULL, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(scheduler == NULL && strstr(csrm_last_error(), "scorer") != NULL);
  CHECK(csrm_scheduler_create(NULL, NULL, NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_submit(NULL, NULL, NULL, NULL, 0, on_answer, NULL, NULL) ==
        CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_score(NULL, NULL, NULL, NULL, 0, &result) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(result.verdict == CSRM_VERDICT_UNKNOWN && isnan(result.compliance));
  CHECK(csrm_scheduler_score(NULL, NULL, NULL, NULL, 0, NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_cancel(NULL, 1, NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_shutdown(NULL, NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_get_stats(NULL, &stats) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_scheduler_options_init(NULL);
  csrm_scheduler_stats_init(NULL);
  csrm_scheduler_destroy(NULL);
}

static void test_c_scheduler_options_out_of_range_are_refused(const model* m) {
  csrm_scheduler* scheduler = NULL;
  csrm_scheduler_options options;
  csrm_scheduler_options_init(&options);
  CHECK(options.n_workers == 1 && options.max_requests == 1024 && options.patience_ms == 1000);
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_OK);
  csrm_scheduler_destroy(scheduler);
  options.n_workers = 65;
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(scheduler == NULL);
  csrm_scheduler_options_init(&options);
  options.patience_ms = INT64_MAX;
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_scheduler_options_init(&options);
  options.max_tokens = 0;
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
  memset(&options, 0, sizeof(options)); /* not initialised */
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
}

static void test_c_scheduler_callback_gets_the_score_of_csrm_score(const model* m) {
  csrm_scheduler* scheduler = scheduler_of(m);
  csrm_score_options options;
  csrm_score_result expected;
  csrm_rule_score rules[2];
  uint64_t ticket = 0;
  answer a;
  answer_init(&a);
  csrm_score_options_init(&options);
  options.explain = 1;
  csrm_score_result_init(&expected);
  expected.rules = rules;
  expected.rule_capacity = 2;
  CHECK(csrm_score(m->scorer, m->config, m->conversation, &options, &expected) == CSRM_OK);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, &options, 600000, on_answer,
                              &a, &ticket) == CSRM_OK);
  answer_wait(&a);
  CHECK(ticket != 0 && a.n_calls == 1 && a.code == CSRM_OK);
  CHECK(a.result.reward == expected.reward && a.result.compliance == expected.compliance);
  CHECK(a.result.verdict == expected.verdict && a.result.verdict != CSRM_VERDICT_UNKNOWN);
  CHECK(a.result.n_turns == 1 && a.turns[0].turn == 1 && a.turns[0].reward == expected.reward);
  CHECK(a.result.n_rules == 2 && a.rules[1].rule == 1 && a.rules[1].reward == rules[1].reward);
  csrm_scheduler_destroy(scheduler);
  answer_destroy(&a);
}

typedef struct waiter {
  csrm_scheduler* scheduler;
  const model* shared;
  int code;
  csrm_score_result result;
} waiter;

static void* wait_for_score(void* argument) {
  waiter* w = (waiter*)argument;
  csrm_score_result_init(&w->result);
  w->code = csrm_scheduler_score(w->scheduler, w->shared->config, w->shared->conversation, NULL,
                                 INT64_MAX, &w->result);
  return NULL;
}

static void test_c_scheduler_threads_wait_for_their_scores(const model* m) {
  csrm_scheduler* scheduler = scheduler_of(m);
  csrm_score_result expected;
  pthread_t threads[4];
  waiter waiters[4];
  int i;
  csrm_score_result_init(&expected);
  CHECK(csrm_score(m->scorer, m->config, m->conversation, NULL, &expected) == CSRM_OK);
  for (i = 0; i < 4; ++i) {
    waiters[i].scheduler = scheduler;
    waiters[i].shared = m;
    CHECK(pthread_create(&threads[i], NULL, wait_for_score, &waiters[i]) == 0);
  }
  for (i = 0; i < 4; ++i) {
    pthread_join(threads[i], NULL);
    CHECK(waiters[i].code == CSRM_OK && waiters[i].result.reward == expected.reward);
  }
  csrm_scheduler_destroy(scheduler);
}

static void test_c_scheduler_bad_requests_are_refused_without_a_callback(const model* m) {
  csrm_scheduler* scheduler = scheduler_of(m);
  csrm_score_options options;
  csrm_score_result result;
  csrm_conversation* empty = NULL;
  answer a;
  answer_init(&a);
  csrm_score_result_init(&result);
  CHECK(csrm_conversation_create(&empty) == CSRM_OK);
  CHECK(csrm_scheduler_submit(scheduler, NULL, m->conversation, NULL, NO_DEADLINE, on_answer, &a,
                              NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_submit(scheduler, m->config, NULL, NULL, NO_DEADLINE, on_answer, &a, NULL) ==
        CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, NO_DEADLINE, NULL, &a,
                              NULL) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(strstr(csrm_last_error(), "callback") != NULL);
  CHECK(csrm_scheduler_submit(scheduler, m->config, empty, NULL, NO_DEADLINE, on_answer, &a,
                              NULL) == CSRM_ERROR_EMPTY_CONVERSATION);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, 0, on_answer, &a,
                              NULL) == CSRM_ERROR_DEADLINE_EXCEEDED);
  CHECK(csrm_scheduler_score(scheduler, m->config, m->conversation, NULL, 0, &result) ==
        CSRM_ERROR_DEADLINE_EXCEEDED);
  CHECK(result.verdict == CSRM_VERDICT_UNKNOWN);
  csrm_score_options_init(&options);
  options.judged = 7;
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, &options, NO_DEADLINE,
                              on_answer, &a, NULL) == CSRM_ERROR_BAD_ARGUMENT);
  memset(&result, 0, sizeof(result)); /* not initialised */
  CHECK(csrm_scheduler_score(scheduler, m->config, m->conversation, NULL, 0, &result) ==
        CSRM_ERROR_BAD_ARGUMENT);
  csrm_scheduler_destroy(scheduler);
  CHECK(a.n_calls == 0);
  csrm_conversation_destroy(empty);
  answer_destroy(&a);
}

static void test_c_scheduler_what_waits_is_cancelled_or_expires(const model* m) {
  csrm_scheduler* scheduler = scheduler_of(m);
  int32_t is_withdrawn = -1;
  uint64_t ticket = 0;
  gate g;
  answer cancelled, late;
  gate_init(&g);
  answer_init(&cancelled);
  answer_init(&late);
  occupy(scheduler, m, &g);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, NO_DEADLINE, on_answer,
                              &cancelled, &ticket) == CSRM_OK);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, 300, on_answer, &late,
                              NULL) == CSRM_OK);
  CHECK(csrm_scheduler_cancel(scheduler, ticket, &is_withdrawn) == CSRM_OK && is_withdrawn == 1);
  CHECK(csrm_scheduler_cancel(scheduler, ticket, &is_withdrawn) == CSRM_OK && is_withdrawn == 0);
  CHECK(csrm_scheduler_cancel(scheduler, 12345, NULL) == CSRM_OK);
  sleep_ms(400); /* past the deadline of the other */
  gate_open(&g);
  answer_wait(&cancelled);
  answer_wait(&late);
  CHECK(cancelled.code == CSRM_ERROR_CANCELLED && strlen(cancelled.message) > 0);
  CHECK(cancelled.result.verdict == CSRM_VERDICT_UNKNOWN && isnan(cancelled.result.reward));
  CHECK(late.code == CSRM_ERROR_DEADLINE_EXCEEDED && strlen(late.message) > 0);
  csrm_scheduler_destroy(scheduler);
  CHECK(cancelled.n_calls == 1 && late.n_calls == 1 && g.n_inside == 2);
  gate_destroy(&g);
  answer_destroy(&cancelled);
  answer_destroy(&late);
}

static void test_c_scheduler_full_is_overloaded_and_counted(const model* m) {
  csrm_scheduler* scheduler = NULL;
  csrm_scheduler_options options;
  csrm_scheduler_stats stats;
  gate g;
  answer a;
  gate_init(&g);
  answer_init(&a);
  csrm_scheduler_options_init(&options);
  options.max_requests = 1;
  CHECK(csrm_scheduler_create(m->scorer, &options, &scheduler) == CSRM_OK);
  occupy(scheduler, m, &g);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, NO_DEADLINE, on_answer,
                              &a, NULL) == CSRM_OK);
  CHECK(csrm_scheduler_submit(scheduler, m->config, m->conversation, NULL, NO_DEADLINE, on_answer,
                              &a, NULL) == CSRM_ERROR_OVERLOADED);
  memset(&stats, 0, sizeof(stats)); /* not initialised */
  CHECK(csrm_scheduler_get_stats(scheduler, &stats) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_scheduler_stats_init(&stats);
  CHECK(csrm_scheduler_get_stats(scheduler, &stats) == CSRM_OK);
  CHECK(stats.n_accepted == 3 && stats.n_refused == 1 && stats.n_finished == 2);
  CHECK(stats.n_queued == 1 && stats.n_running == 0 && stats.held_tokens > 0);
  CHECK(stats.n_rows == 2 && stats.real_tokens > 0 && stats.struct_size == sizeof(stats));
  gate_open(&g);
  answer_wait(&a);
  CHECK(a.code == CSRM_OK);
  csrm_scheduler_destroy(scheduler);
  CHECK(a.n_calls == 1);
  gate_destroy(&g);
  answer_destroy(&a);
}

/* A shutdown in a thread of its own. */
typedef struct stopper {
  csrm_scheduler* scheduler;
  int code;
  int32_t has_ended;
} stopper;

static void* shut_down(void* argument) {
  stopper* s = (stopper*)argument;
  s->code = csrm_scheduler_shutdown(s->scheduler, &s->has_ended);
  return NULL;
}

static void test_c_scheduler_after_shutdown_everything_is_cancelled(const model* m) {
  csrm_score_result result;
  pthread_t thread;
  stopper s;
  gate g;
  answer waiting, never;
  uint64_t ticket = 77;
  int code;
  s.scheduler = scheduler_of(m);
  s.has_ended = -1;
  gate_init(&g);
  answer_init(&waiting);
  answer_init(&never);
  csrm_score_result_init(&result);
  occupy(s.scheduler, m, &g);
  CHECK(csrm_scheduler_submit(s.scheduler, m->config, m->conversation, NULL, NO_DEADLINE, on_answer,
                              &waiting, NULL) == CSRM_OK);
  CHECK(pthread_create(&thread, NULL, shut_down, &s) == 0);
  do { /* until the shutdown has begun; it cannot end before the gate is open */
    sched_yield();
    code = csrm_scheduler_submit(s.scheduler, m->config, m->conversation, NULL, 0, on_answer,
                                 &never, &ticket);
  } while (code == CSRM_ERROR_DEADLINE_EXCEEDED);
  CHECK(code == CSRM_ERROR_CANCELLED && ticket == 77);
  gate_open(&g);
  pthread_join(thread, NULL);
  CHECK(s.code == CSRM_OK && s.has_ended == 1);
  CHECK(waiting.n_calls == 1 && waiting.code == CSRM_ERROR_CANCELLED);
  CHECK(csrm_scheduler_score(s.scheduler, m->config, m->conversation, NULL, NO_DEADLINE, &result) ==
        CSRM_ERROR_CANCELLED);
  CHECK(csrm_scheduler_cancel(s.scheduler, 1, NULL) == CSRM_OK);
  CHECK(csrm_scheduler_shutdown(s.scheduler, NULL) == CSRM_OK);
  csrm_scheduler_destroy(s.scheduler);
  CHECK(never.n_calls == 0 && g.n_inside == 2);
  gate_destroy(&g);
  answer_destroy(&waiting);
  answer_destroy(&never);
}

/* A callback that uses its scheduler. */
typedef struct inside {
  answer done;
  csrm_scheduler* scheduler;
  const model* shared;
  int score_code, submit_code, shutdown_code;
  int32_t has_ended;
  answer second;
} inside;

static void use_inside(void* user_data, int code, const csrm_score_result* result) {
  inside* in = (inside*)user_data;
  csrm_score_result own;
  csrm_score_result_init(&own);
  in->score_code = csrm_scheduler_score(in->scheduler, in->shared->config, in->shared->conversation,
                                        NULL, NO_DEADLINE, &own);
  in->submit_code =
      csrm_scheduler_submit(in->scheduler, in->shared->config, in->shared->conversation, NULL,
                            NO_DEADLINE, on_answer, &in->second, NULL);
  in->shutdown_code = csrm_scheduler_shutdown(in->scheduler, &in->has_ended);
  on_answer(&in->done, code, result);
}

static void test_c_scheduler_callback_may_submit_and_shut_down_but_not_wait(const model* m) {
  int32_t has_ended = -1;
  inside in;
  memset(&in, 0, sizeof(in));
  answer_init(&in.done);
  answer_init(&in.second);
  in.has_ended = -1;
  in.shared = m;
  in.scheduler = scheduler_of(m);
  CHECK(csrm_scheduler_submit(in.scheduler, m->config, m->conversation, NULL, NO_DEADLINE,
                              use_inside, &in, NULL) == CSRM_OK);
  answer_wait(&in.done);
  answer_wait(&in.second);
  CHECK(in.done.code == CSRM_OK && in.score_code == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(in.submit_code == CSRM_OK && in.shutdown_code == CSRM_OK && in.has_ended == 0);
  CHECK(in.second.code == CSRM_OK || in.second.code == CSRM_ERROR_CANCELLED);
  CHECK(csrm_scheduler_shutdown(in.scheduler, &has_ended) == CSRM_OK && has_ended == 1);
  csrm_scheduler_destroy(in.scheduler);
  CHECK(in.done.n_calls == 1 && in.second.n_calls == 1);
  answer_destroy(&in.done);
  answer_destroy(&in.second);
}

static void destroy_inside(void* user_data, int code, const csrm_score_result* result) {
  inside* in = (inside*)user_data;
  csrm_scheduler_destroy(in->scheduler);
  on_answer(&in->done, code, result);
}

static void test_c_scheduler_destroyed_in_its_callback_or_after_its_scorer(const char* artifact,
                                                                           const char* library) {
  csrm_scorer_options options;
  model m;
  inside in;
  csrm_scorer_options_init(&options);
  options.engine_library = library;
  options.n_threads = 1;
  memset(&m, 0, sizeof(m));
  memset(&in, 0, sizeof(in));
  answer_init(&in.done);
  CHECK(csrm_scorer_create(artifact, &options, &m.scorer) == CSRM_OK);
  m.config = config_of("Never promise a refund.");
  m.conversation = conversation_of("You get your money back.");
  in.scheduler = scheduler_of(&m);
  csrm_scorer_destroy(m.scorer);
  CHECK(csrm_scheduler_submit(in.scheduler, m.config, m.conversation, NULL, NO_DEADLINE,
                              destroy_inside, &in, NULL) == CSRM_OK);
  csrm_config_destroy(m.config);
  csrm_conversation_destroy(m.conversation);
  answer_wait(&in.done);
  CHECK(in.done.n_calls == 1 && in.done.code == CSRM_OK);
  answer_destroy(&in.done);
}

static void test_with_model(const char* artifact, const char* library) {
  csrm_scorer_options options;
  model m;
  csrm_scorer_options_init(&options);
  options.engine_library = library;
  options.n_threads = 1;
  CHECK(csrm_scorer_create(artifact, &options, &m.scorer) == CSRM_OK);
  if (m.scorer == NULL) {
    printf("%s\n", csrm_last_error());
    return;
  }
  m.config = config_of("Never promise a refund.");
  m.conversation = conversation_of("You get your money back.");
  test_c_scheduler_options_out_of_range_are_refused(&m);
  test_c_scheduler_callback_gets_the_score_of_csrm_score(&m);
  test_c_scheduler_threads_wait_for_their_scores(&m);
  test_c_scheduler_bad_requests_are_refused_without_a_callback(&m);
  test_c_scheduler_what_waits_is_cancelled_or_expires(&m);
  test_c_scheduler_full_is_overloaded_and_counted(&m);
  test_c_scheduler_after_shutdown_everything_is_cancelled(&m);
  test_c_scheduler_callback_may_submit_and_shut_down_but_not_wait(&m);
  csrm_conversation_destroy(m.conversation);
  csrm_config_destroy(m.config);
  csrm_scorer_destroy(m.scorer);
  test_c_scheduler_destroyed_in_its_callback_or_after_its_scorer(artifact, library);
}

int main(int argc, char** argv) {
  test_c_scheduler_null_arguments_are_refused();
  if (argc == 3) {
    test_with_model(argv[1], argv[2]);
  } else {
    n_skipped = 9;
    printf("SKIPPED 9 TESTS: they need the arguments ARTIFACT_FOLDER LIBONNXRUNTIME\n");
  }
  printf("%d checks, %d failures, %d tests skipped\n", n_checks, n_failures, n_skipped);
  return n_failures > 0 ? 1 : n_skipped > 0 ? 77 : 0;
}
