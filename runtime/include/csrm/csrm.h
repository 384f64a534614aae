/* csrm in C99: score conversations against a safety configuration. This header is the manual.
 *
 * Not: the C++ API (csrm/scorer.h), file formats for configs but JSON (Python) or HTTP. A gateway
 * filter to start from is docs/examples/gateway_filter.c; how to build it: docs/c-api.md.
 *
 *   csrm_scorer* scorer = NULL;
 *   csrm_scheduler* scheduler = NULL;
 *   csrm_config* config = NULL;
 *   if (csrm_scorer_create("models/csrm-mini", NULL, &scorer) != CSRM_OK ||
 *       csrm_scheduler_create(scorer, NULL, &scheduler) != CSRM_OK ||
 *       csrm_config_parse_json(policy, policy_bytes, &config) != CSRM_OK)
 *     fprintf(stderr, "%s\n", csrm_last_error());
 *
 *   csrm_conversation* conversation = NULL;   for each request, from any thread
 *   csrm_score_result result;
 *   csrm_score_result_init(&result);
 *   int code = csrm_conversation_parse_json(body, body_bytes, &conversation);
 *   if (code == CSRM_OK)
 *     code = csrm_scheduler_score(scheduler, config, conversation, NULL, 200, &result);
 *   csrm_conversation_destroy(conversation);
 *   int may_pass = code == CSRM_OK && result.verdict == CSRM_VERDICT_COMPLIANT;
 *
 * Three ways to score: csrm_score in the calling thread; csrm_scheduler_score, which waits for its
 * turn and has a deadline; csrm_scheduler_submit, which answers by a callback.
 *
 * Conventions, true of every function:
 * - A function that can fail returns a code: 0 (CSRM_OK) or one of CSRM_ERROR_*. On failure
 *   csrm_last_error() says what was wrong, the value, the limit and what to do; it never contains
 *   text of a config or a conversation. Nothing throws, aborts or prints.
 * - Texts are UTF-8 given as pointer and number of bytes; a terminating zero is not needed and a
 *   zero inside is text. A pointer may be NULL if its number of bytes is 0. Texts are copied: the
 *   caller may free them as soon as the call returns.
 * - Handles belong to the caller, who destroys each exactly once. Destroying NULL does nothing.
 *   Any order will do: what a scheduler needs of its scorer, or a request of its config, it keeps.
 * - Threads: csrm_score may be called from several threads at once on the same scorer, config and
 *   conversation, and every function of a scheduler but its destruction on the same scheduler.
 *   Changing or destroying a handle while another thread uses it is an error of the caller. The
 *   other functions may be called from any thread on handles of their own.
 * - After a fork only the parent may go on using handles; a child makes its own.
 * - Structs for options and results start with struct_size, set by their _init, so that later
 *   versions can add fields at the end. Call _init before anything else: a struct that was not
 *   initialised is a BAD_ARGUMENT. Each _init is a macro that passes the size in the caller's
 *   header to the function _init_sized, which other languages call; the function behind the macro
 *   fills the fields of the first header. A program built when a struct was shorter goes on
 *   working: fields that it does not know have their defaults. One built when it was longer works
 *   while it leaves the new fields as _init sets them; else it is told UNSUPPORTED.
 *
 * The ABI: within one CSRM_ABI_VERSION functions, fields and codes are added, never changed or
 * removed, and the library's name on the loader's path stays (libcsrm.so.1). Compare at start:
 *   if (csrm_abi_version() != CSRM_ABI_VERSION) ... another library than the header's is loaded
 *
 * The engine: scoring needs the shared library of ONNX Runtime 1.17 or newer, which
 * csrm_scorer_create opens (dlopen), in this order:
 *   1. csrm_scorer_options.engine_library, a path;
 *   2. else the path in the environment variable CSRM_ENGINE_LIBRARY;
 *   3. else the one of the package onnxruntime that pip installed beside the package csrm that
 *      libcsrm.so is part of;
 *   4. else libonnxruntime.so.1, then libonnxruntime.so, as the loader finds them.
 * No Python runs in any of them.
 */
#ifndef CSRM_CSRM_H_
#define CSRM_CSRM_H_

#include <stddef.h>
#include <stdint.h>

#include "csrm/visibility.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the release this header is part of: features and fixes. */
#define CSRM_VERSION_MAJOR 0
#define CSRM_VERSION_MINOR 1
#define CSRM_VERSION_PATCH 0
#define CSRM_VERSION "0.1.0"

/* Version of the interface. It changes only when an existing program would break. */
#define CSRM_ABI_VERSION 1

/* Codes. The numbers never change; new ones are added at the end. */
#define CSRM_OK 0
#define CSRM_ERROR_BAD_UTF8 1            /* a text is not valid UTF-8 */
#define CSRM_ERROR_EMPTY_CONVERSATION 2  /* there is no turn with text to judge */
#define CSRM_ERROR_EMPTY_CONFIG 3        /* the config has no rule with text */
#define CSRM_ERROR_UNKNOWN_ROLE 4        /* a role is not one of CSRM_ROLE_* */
#define CSRM_ERROR_LIMIT_EXCEEDED 5      /* an input is larger than a limit, or out of memory */
#define CSRM_ERROR_BAD_CONFIG 6          /* a config does not follow the schema */
#define CSRM_ERROR_BAD_CONVERSATION 7    /* a conversation does not follow the schema */
#define CSRM_ERROR_BAD_ARTIFACT 8        /* the model folder is incomplete or malformed */
#define CSRM_ERROR_DIGEST_MISMATCH 9     /* a model file differs from its digest */
#define CSRM_ERROR_UNSUPPORTED 10        /* newer than this build */
#define CSRM_ERROR_ENGINE_UNAVAILABLE 11 /* an engine's library or device cannot be had */
#define CSRM_ERROR_ENGINE_FAILED 12      /* ONNX Runtime returned an error */
#define CSRM_ERROR_NON_FINITE 13         /* the model produced a value that is not finite */
#define CSRM_ERROR_BAD_ARGUMENT 14       /* an argument or option is outside its range, or NULL */
#define CSRM_ERROR_INTERNAL 15           /* an invariant of csrm failed; please report it */
#define CSRM_ERROR_OVERLOADED 16         /* a scheduler's queue is full */
#define CSRM_ERROR_DEADLINE_EXCEEDED 17  /* a deadline passed before the request was scored */
#define CSRM_ERROR_CANCELLED 18          /* a request was withdrawn, or a scheduler shut down */

#define CSRM_ROLE_SYSTEM 0
#define CSRM_ROLE_USER 1
#define CSRM_ROLE_ASSISTANT 2
#define CSRM_ROLE_TOOL 3

#define CSRM_JUDGED_LAST 0      /* judge the last turn */
#define CSRM_JUDGED_ASSISTANT 1 /* judge every assistant turn that has text; the minimum counts */

#define CSRM_EXPLAIN_NONE 0
#define CSRM_EXPLAIN_EXACT 1 /* under each rule alone; one more pass per rule */
#define CSRM_EXPLAIN_FAST 2  /* an approximation of it for a part of the cost; encoders only */

/* Unknown goes with every failure. Only an explicit CSRM_VERDICT_COMPLIANT lets anything pass. */
#define CSRM_VERDICT_UNKNOWN 0
#define CSRM_VERDICT_COMPLIANT 1
#define CSRM_VERDICT_VIOLATION 2

typedef struct csrm_scorer csrm_scorer;
typedef struct csrm_config csrm_config;
typedef struct csrm_conversation csrm_conversation;
typedef struct csrm_scheduler csrm_scheduler;

/* Returns CSRM_ABI_VERSION of the library that is loaded; compare it with the header's. */
CSRM_API uint32_t csrm_abi_version(void);

/* Returns CSRM_VERSION of the library that is loaded; static storage. */
CSRM_API const char* csrm_version(void);

/* Returns the message of the last call that failed on this thread, "" if none did. Owned by the
 * library; valid until the next csrm call on this thread. Never NULL. In a callback it is about the
 * answer. */
CSRM_API const char* csrm_last_error(void);

/* Returns the class name of a code ("BadUtf8"); static storage; "Internal" for an unknown code. */
CSRM_API const char* csrm_code_name(int code);

typedef struct csrm_scorer_options {
  size_t struct_size;
  const char* engine_library; /* path of libonnxruntime, zero-terminated; NULL or "" = searched */
  const char* variant;     /* "portable", "fused", "half", "int8", "cuda"; NULL or "" = the best */
  const char* tenant_salt; /* zero-terminated or NULL; keeps cache entries of tenants apart */
  int32_t n_threads;       /* engine threads; 0 = physical cores */
  int32_t allow_spinning;  /* nonzero: threads spin: faster alone, slower beside others */
  size_t cache_tokens;     /* bound of the prefix cache, in tokens; 0 = no cache */
  size_t batch_tokens;     /* padded tokens encoded in one engine call; at least 1 */
  size_t max_text_bytes;   /* limits of one call; exceeding one is an error, never a cut */
  size_t max_rules;
  size_t max_turns;
  size_t max_config_tokens;
  size_t max_conversation_tokens;
  const char* device; /* "cpu", "cuda", "tensorrt": that one or ENGINE_UNAVAILABLE; NULL, "" or
                       * "auto" = the GPU where artifact and machine can, else the CPU */
} csrm_scorer_options;

/* Fills *options with the defaults. Does nothing if options is NULL. */
CSRM_API void csrm_scorer_options_init_sized(csrm_scorer_options* options, size_t struct_size);
CSRM_API void csrm_scorer_options_init(csrm_scorer_options* options);
#define csrm_scorer_options_init(options) \
  csrm_scorer_options_init_sized((options), sizeof(csrm_scorer_options))

/* Loads the artifact in the folder artifact_dir (zero-terminated path) into *scorer, every file
 * verified against its digest: not for each request. The engine has threads of its own from then
 * on. options may be NULL for the defaults. On failure *scorer is NULL.
 * Unless ORT_DISABLE_TELEMETRY is in the environment it is set to 1 there, so that the engine
 * reports nothing to anybody; other threads must not read the environment meanwhile.
 * Errors: BAD_ARTIFACT, DIGEST_MISMATCH, UNSUPPORTED, ENGINE_UNAVAILABLE, ENGINE_FAILED,
 * BAD_ARGUMENT, LIMIT_EXCEEDED. */
CSRM_API int csrm_scorer_create(const char* artifact_dir, const csrm_scorer_options* options,
                                csrm_scorer** scorer);
CSRM_API void csrm_scorer_destroy(csrm_scorer* scorer);

/* What was loaded; constant for the life of the scorer. Texts are zero-terminated, belong to the
 * scorer and are valid until it is destroyed. */
typedef struct csrm_scorer_info {
  size_t struct_size;
  const char* name;            /* of the artifact */
  const char* variant;         /* "portable", "fused", "half", "int8" or "cuda" */
  const char* backbone;        /* "encoder" or "decoder" */
  const char* artifact_digest; /* SHA-256 of manifest.json, 64 hexadecimal digits */
  const char* engine_version;  /* of ONNX Runtime */
  double threshold;            /* the artifact's own; a config carries the one that is used */
  double calibration_a;        /* compliance = sigmoid(a * reward + b) */
  double calibration_b;
  size_t max_positions;     /* of a decoder: tokens of config and conversation; 0 = no such limit */
  int32_t n_threads;        /* inside one engine call */
  int32_t reserved;         /* 0 */
  const char* device;       /* where the model runs: "cpu", "cuda" or "tensorrt" */
  size_t cache_token_bytes; /* keys and values of one token in the prefix cache */
} csrm_scorer_info;

/* Fills *info with zeros and its size. Does nothing if info is NULL. */
CSRM_API void csrm_scorer_info_init_sized(csrm_scorer_info* info, size_t struct_size);
CSRM_API void csrm_scorer_info_init(csrm_scorer_info* info);
#define csrm_scorer_info_init(info) csrm_scorer_info_init_sized((info), sizeof(csrm_scorer_info))

/* Writes what was loaded to *info, which must have been initialised. Errors: BAD_ARGUMENT. */
CSRM_API int csrm_scorer_get_info(const csrm_scorer* scorer, csrm_scorer_info* info);

/* Creates a config without rules. compliant means compliance >= threshold, which is in [0, 1].
 * On failure *config is NULL. Errors: BAD_ARGUMENT, LIMIT_EXCEEDED. */
CSRM_API int csrm_config_create(double threshold, csrm_config** config);

/* Creates the config that a JSON text states, after csrm/config.schema.json: an object whose
 * "rules" is a list of texts or of objects with "text" and "name"; "threshold" is 0.5 if missing.
 * A file in another format becomes one by `csrm config json FILE`. On failure *config is NULL.
 * Errors: BAD_UTF8, BAD_CONFIG, EMPTY_CONFIG, LIMIT_EXCEEDED (over 1 MiB), BAD_ARGUMENT. */
CSRM_API int csrm_config_parse_json(const char* json, size_t json_bytes, csrm_config** config);

/* Appends a rule, whose index is the number of rules before it. name may be empty. The text is
 * checked when the config is used.
 * Errors: BAD_ARGUMENT, LIMIT_EXCEEDED; the config is unchanged. */
CSRM_API int csrm_config_add_rule(csrm_config* config, const char* name, size_t name_bytes,
                                  const char* text, size_t text_bytes);
CSRM_API void csrm_config_destroy(csrm_config* config);

/* Creates a conversation without turns. On failure *conversation is NULL.
 * Errors: BAD_ARGUMENT, LIMIT_EXCEEDED. */
CSRM_API int csrm_conversation_create(csrm_conversation** conversation);

/* Creates the conversation in a JSON text: the body of a chat request, an object whose "messages"
 * (or "conversation") is the list, or that list alone. A message has a "role" (developer is read as
 * system, function as tool) and a "content": a text, a list of {"type": "text", "text": ...}
 * (joined by newlines), or null beside "tool_calls" (empty). Other keys are ignored; other parts,
 * such as images, are refused: nothing is left out in silence. On failure *conversation is NULL.
 * Errors: BAD_UTF8, BAD_CONVERSATION, EMPTY_CONVERSATION, UNKNOWN_ROLE, LIMIT_EXCEEDED (over
 * 16 MiB), BAD_ARGUMENT. */
CSRM_API int csrm_conversation_parse_json(const char* json, size_t json_bytes,
                                          csrm_conversation** conversation);

/* Appends a turn by one of CSRM_ROLE_*, whose index is the number of turns before it. The text is
 * checked when the conversation is scored.
 * Errors: UNKNOWN_ROLE, BAD_ARGUMENT, LIMIT_EXCEEDED; the conversation is unchanged. */
CSRM_API int csrm_conversation_add_turn(csrm_conversation* conversation, int role,
                                        const char* content, size_t content_bytes);
CSRM_API void csrm_conversation_destroy(csrm_conversation* conversation);

typedef struct csrm_score_options {
  size_t struct_size;
  int32_t judged;  /* CSRM_JUDGED_* */
  int32_t explain; /* CSRM_EXPLAIN_*: whether to score under each rule alone as well */
  /* Nonzero: every turn is encoded on its own over the earlier ones and kept in the prefix cache,
   * so that a call with the same leading turns encodes only what is new. The reward differs from
   * an ordinary one by float rounding only. */
  int32_t reuse_turns;
  /* Nonzero, with reuse_turns: the last turn is still being written; its last block is not kept. */
  int32_t is_growing;
} csrm_score_options;

/* Fills *options with the defaults: the last turn, no explanation, no reuse. Does nothing if
 * options is NULL. */
CSRM_API void csrm_score_options_init_sized(csrm_score_options* options, size_t struct_size);
CSRM_API void csrm_score_options_init(csrm_score_options* options);
#define csrm_score_options_init(options) \
  csrm_score_options_init_sized((options), sizeof(csrm_score_options))

/* Reward is the log-odds that the turn complies; compliance the calibrated probability. As elements
 * of arrays this struct and the next keep their size for ever. */
typedef struct csrm_turn_score {
  size_t turn; /* index in the conversation */
  float reward;
  float compliance;
} csrm_turn_score;

typedef struct csrm_rule_score {
  size_t rule; /* index in the config */
  float reward;
  float compliance;
  int32_t verdict; /* CSRM_VERDICT_* */
} csrm_rule_score;

typedef struct csrm_score_result {
  size_t struct_size;
  float reward;         /* minimum over the judged turns; NaN on failure */
  float compliance;     /* of that minimum; NaN on failure */
  int32_t verdict;      /* CSRM_VERDICT_*; UNKNOWN on failure */
  size_t scored_tokens; /* conversation tokens encoded, control ids included */
  size_t n_turns;       /* judged turns, which may be more than turn_capacity */
  size_t n_rules;       /* rules explained, which may be more than rule_capacity; else 0 */
  /* Set by the caller before the call; the arrays stay the caller's. */
  csrm_turn_score* turns; /* the first turn_capacity judged turns are written; NULL = none */
  size_t turn_capacity;   /* the number of turns in the conversation always suffices */
  csrm_rule_score* rules; /* the first rule_capacity rules are written; NULL = none */
  size_t rule_capacity;   /* the number of rules in the config always suffices */
} csrm_score_result;

/* Fills *result with verdict UNKNOWN, NaN and empty arrays. Does nothing if it is NULL. */
CSRM_API void csrm_score_result_init_sized(csrm_score_result* result, size_t struct_size);
CSRM_API void csrm_score_result_init(csrm_score_result* result);
#define csrm_score_result_init(result) \
  csrm_score_result_init_sized((result), sizeof(csrm_score_result))

/* Scores the judged turns of the conversation under the config, in the calling thread and without a
 * deadline. The first call under a config also encodes its rules, and so takes longer: score once
 * before traffic comes. options may be NULL for the defaults. *result must have been initialised
 * and may be used again. On failure its verdict is UNKNOWN, reward and compliance are NaN and the
 * counts are 0.
 * Errors: EMPTY_CONFIG, EMPTY_CONVERSATION, BAD_UTF8, LIMIT_EXCEEDED, ENGINE_FAILED, NON_FINITE,
 * BAD_ARGUMENT, INTERNAL. */
CSRM_API int csrm_score(const csrm_scorer* scorer, const csrm_config* config,
                        const csrm_conversation* conversation, const csrm_score_options* options,
                        csrm_score_result* result);

/* A scheduler stands between many callers and one scorer: it queues requests, batches short ones,
 * runs the most urgent first and answers each exactly once. docs/scheduler.md says in which order
 * and within which bounds. */
typedef struct csrm_scheduler_options {
  size_t struct_size;
  int32_t n_workers;   /* engine calls at a time, 1 to 64; the engine's threads share one */
  int32_t max_begun;   /* conversations of several calls in progress at a time; at least 1 */
  size_t max_requests; /* accepted and not yet answered; beyond it a request is OVERLOADED */
  size_t max_tokens;   /* the same in conversation tokens; one alone may have more */
  size_t batch_tokens; /* padded tokens that share a call; 0 = by the engine's threads */
  int64_t patience_ms; /* a request is due so long after it came at the latest; 0 to 24 hours */
} csrm_scheduler_options;

/* Fills *options with the defaults. Does nothing if options is NULL. */
CSRM_API void csrm_scheduler_options_init_sized(csrm_scheduler_options* options,
                                                size_t struct_size);
CSRM_API void csrm_scheduler_options_init(csrm_scheduler_options* options);
#define csrm_scheduler_options_init(options) \
  csrm_scheduler_options_init_sized((options), sizeof(csrm_scheduler_options))

/* Makes a scheduler with its worker threads running. It keeps what it needs of the scorer, whose
 * handle may be used beside it and destroyed before it. options may be NULL for the defaults. On
 * failure *scheduler is NULL. Errors: BAD_ARGUMENT, UNSUPPORTED, LIMIT_EXCEEDED (memory, threads).
 */
CSRM_API int csrm_scheduler_create(const csrm_scorer* scorer, const csrm_scheduler_options* options,
                                   csrm_scheduler** scheduler);

/* Shuts down as csrm_scheduler_shutdown does, then frees the scheduler. In a callback of its own
 * the calling thread goes on until it has called the callbacks it has left. */
CSRM_API void csrm_scheduler_destroy(csrm_scheduler* scheduler);

/* The answer to a request. code is CSRM_OK or why there is no score; csrm_last_error() then says
 * more. result is never NULL and is valid during the call alone: on failure its verdict is UNKNOWN,
 * else turns and rules hold all n_turns and n_rules entries. Called by a worker thread that holds
 * no lock; it may call any function of csrm but csrm_scheduler_score on the same scheduler, and
 * must not throw or jump out. */
typedef void (*csrm_score_callback)(void* user_data, int code, const csrm_score_result* result);

/* Takes a request and returns at once. Config and conversation are tokenised here and may be
 * changed or destroyed afterwards. timeout_ms: no engine call is made for the request when so much
 * time has passed; negative = no deadline. A deadline that passes while the engine works on the
 * request is noticed when that engine call ends. user_data goes to the callback as it is. options
 * may be NULL for the defaults. *ticket, which csrm_scheduler_cancel takes, is written before the
 * call returns; ticket may be NULL. CSRM_OK: callback is called exactly once, possibly before this
 * returns, with a code that is CSRM_OK, DEADLINE_EXCEEDED, CANCELLED, ENGINE_FAILED, NON_FINITE,
 * LIMIT_EXCEEDED or INTERNAL. Else it is never called. Errors: OVERLOADED; DEADLINE_EXCEEDED
 * (timeout_ms is 0); CANCELLED (after a shutdown); UNSUPPORTED (in the child of a fork); those of
 * csrm_score for its input. */
CSRM_API int csrm_scheduler_submit(csrm_scheduler* scheduler, const csrm_config* config,
                                   const csrm_conversation* conversation,
                                   const csrm_score_options* options, int64_t timeout_ms,
                                   csrm_score_callback callback, void* user_data, uint64_t* ticket);

/* Submits and waits for the answer, which is written as csrm_score writes it; timeout_ms as there.
 * Errors: those of submit and of its callback; BAD_ARGUMENT in a callback of this scheduler, which
 * would wait for itself. */
CSRM_API int csrm_scheduler_score(csrm_scheduler* scheduler, const csrm_config* config,
                                  const csrm_conversation* conversation,
                                  const csrm_score_options* options, int64_t timeout_ms,
                                  csrm_score_result* result);

/* Withdraws a request. *is_withdrawn (may be NULL) is 1 if it waited for an engine call: its
 * callback gets CANCELLED. It is 0 if the request is answered or unknown, or in an engine call: if
 * that is not its last one its callback gets CANCELLED too, else its answer stands.
 * Errors: BAD_ARGUMENT. */
CSRM_API int csrm_scheduler_cancel(csrm_scheduler* scheduler, uint64_t ticket,
                                   int32_t* is_withdrawn);

/* Accepts nothing more, lets engine calls that run come to their end and answers CANCELLED to what
 * is then not done. Returns when every callback has; *has_ended (may be NULL) is then 1. In a
 * callback it returns at once and *has_ended is 0: another shutdown, by another thread, waits.
 * May be called again. Errors: BAD_ARGUMENT. */
CSRM_API int csrm_scheduler_shutdown(csrm_scheduler* scheduler, int32_t* has_ended);

/* Counts since the scheduler was made, but for the first three, which are those of now. */
typedef struct csrm_scheduler_stats {
  size_t struct_size;
  size_t n_queued;     /* requests that wait for an engine call */
  size_t n_running;    /* requests in an engine call */
  size_t held_tokens;  /* conversation tokens of both */
  uint64_t n_accepted; /* each is answered once: finished, failed, expired or cancelled */
  uint64_t n_refused;  /* OVERLOADED, or the deadline had passed when it came */
  uint64_t n_finished; /* with a score */
  uint64_t n_failed;   /* with an error of the engine or the model */
  uint64_t n_expired;  /* DEADLINE_EXCEEDED */
  uint64_t n_cancelled;
  uint64_t n_batches;      /* engine calls for rows of conversations */
  uint64_t n_rows;         /* rows in them */
  uint64_t real_tokens;    /* tokens of these rows */
  uint64_t padded_tokens;  /* the same with padding */
  uint64_t n_prefix_calls; /* engine calls for rules */
  uint64_t queue_time_ns;  /* sum over requests, from submission to the first engine call */
  uint64_t max_queue_time_ns;
} csrm_scheduler_stats;

/* Fills *stats with zeros and its size. Does nothing if stats is NULL. */
CSRM_API void csrm_scheduler_stats_init_sized(csrm_scheduler_stats* stats, size_t struct_size);
CSRM_API void csrm_scheduler_stats_init(csrm_scheduler_stats* stats);
#define csrm_scheduler_stats_init(stats) \
  csrm_scheduler_stats_init_sized((stats), sizeof(csrm_scheduler_stats))

/* Writes the counts to *stats, which must have been initialised. Errors: BAD_ARGUMENT. */
CSRM_API int csrm_scheduler_get_stats(csrm_scheduler* scheduler, csrm_scheduler_stats* stats);

#ifdef __cplusplus
}
#endif

#endif /* CSRM_CSRM_H_ */
