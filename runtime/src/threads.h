// How many engine threads to start when the caller does not say.
// Not: a thread pool; the engine has its own.
#ifndef CSRM_SRC_THREADS_H_
#define CSRM_SRC_THREADS_H_

namespace csrm {

// Physical cores this process may run on, and no more than its cgroup's CPU quota; at least 1.
int default_threads() noexcept;

}  // namespace csrm

#endif  // CSRM_SRC_THREADS_H_
