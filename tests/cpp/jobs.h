// Jobs made by hand for the tests of the queue and of the workers.
// Not: jobs of real requests (job_stages.cc makes those).
#ifndef CSRM_TESTS_CPP_JOBS_H_
#define CSRM_TESTS_CPP_JOBS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "job.h"

namespace csrm_test {

const csrm::SchedulerTime kStart{std::chrono::hours(1)};

inline csrm::SchedulerTime at_ms(int ms) { return kStart + std::chrono::milliseconds(ms); }

inline csrm::GroupKey config_key(uint8_t config) {
  csrm::GroupKey key{};
  key.first[0] = config;
  return key;
}

// A job of one row per length, under a config whose prefix the cache had.
inline csrm::JobPointer job_of(uint64_t ticket, const std::vector<size_t>& lengths,
                               uint8_t config = 1) {
  auto job = std::make_unique<csrm::Job>();
  job->ticket = ticket;
  for (const size_t length : lengths) {
    csrm::Row row;
    row.n_tokens = length;
    job->rows.push_back(row);
    job->conversation.n_tokens += length;
  }
  job->shares_call = lengths.size() == 1;
  job->is_quick = job->shares_call;
  job->key = config_key(config);
  job->known_prefix = std::make_shared<csrm::Prefix>();
  return job;
}

inline csrm::JobPointer due_at(csrm::JobPointer job, int ms) {
  job->deadline = at_ms(ms);
  return job;
}

inline csrm::JobPointer without_prefix(csrm::JobPointer job) {
  job->known_prefix = nullptr;
  return job;
}

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_JOBS_H_
