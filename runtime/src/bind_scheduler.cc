// `_core.Scheduler`: the C++ Scheduler for Python. A request's answer goes to a Python function,
// called by a worker thread that takes the GIL for that call alone; csrm.scheduler makes it a
// Future. Not: the order of requests, and not the scores.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bind_score.h"
#include "bind_status.h"
#include "csrm/scheduler.h"

namespace py = pybind11;

namespace csrm {
namespace {

std::chrono::nanoseconds nanoseconds_of(double seconds) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(seconds));
}

std::shared_ptr<Scheduler> make_scheduler(std::shared_ptr<Scorer> scorer, int n_workers,
                                          size_t max_requests, size_t max_tokens,
                                          size_t batch_tokens, double patience_s, int max_begun) {
  SchedulerOptions options;
  options.n_workers = n_workers;
  options.max_requests = max_requests;
  options.max_tokens = max_tokens;
  options.batch_tokens = batch_tokens;
  options.patience =
      std::chrono::duration_cast<std::chrono::milliseconds>(nanoseconds_of(patience_s));
  options.max_begun = max_begun;
  return value_or_raise(Scheduler::create(std::move(scorer), options));
}

// A Python function that C++ threads hold without the GIL and call once.
class Answer {
 public:
  explicit Answer(const py::function& function) : function_(function) {}
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  ~Answer() {
    if (!function_) return;
    const py::gil_scoped_acquire hold;
    function_ = py::function();
  }

  void give(const Result<Score>& score) {
    const py::gil_scoped_acquire hold;
    // Dropped here too: the GIL is taken once for each answer.
    const py::function function = std::move(function_);
    try {
      function(score.ok() ? score_tuple(score.value()) : error_tuple(score.status()));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("csrm.Scheduler's callback");
    }
  }

 private:
  py::function function_;
};

uint64_t submit(Scheduler& scheduler, const py::list& rules, double threshold,
                const py::list& turns, const std::string& judged, const py::object& explain,
                bool reuse_turns, std::optional<double> deadline_s, const py::function& on_answer) {
  ScoreRequest request;
  request.config = config_of(rules, threshold);
  request.conversation = value_or_raise(conversation_of(turns));
  request.options.judged = judged_of(judged);
  request.options.explain = explain_of(explain);
  request.options.reuse_turns = reuse_turns;
  if (deadline_s.has_value()) {
    request.deadline = std::chrono::steady_clock::now() + nanoseconds_of(*deadline_s);
  }
  const auto answer = std::make_shared<Answer>(on_answer);
  Result<uint64_t> ticket = [&] {
    const py::gil_scoped_release release;
    return scheduler.submit(std::move(request),
                            [answer](const Result<Score>& score) { answer->give(score); });
  }();
  return value_or_raise(std::move(ticket));
}

py::dict stats_dict(const Scheduler& scheduler) {
  const SchedulerStats stats = [&] {
    const py::gil_scoped_release release;
    return scheduler.stats();
  }();
  const auto seconds = [](std::chrono::nanoseconds time) {
    return std::chrono::duration<double>(time).count();
  };
  py::dict dict;
  dict["n_queued"] = stats.n_queued;
  dict["n_running"] = stats.n_running;
  dict["held_tokens"] = stats.held_tokens;
  dict["n_accepted"] = stats.n_accepted;
  dict["n_refused"] = stats.n_refused;
  dict["n_finished"] = stats.n_finished;
  dict["n_failed"] = stats.n_failed;
  dict["n_expired"] = stats.n_expired;
  dict["n_cancelled"] = stats.n_cancelled;
  dict["n_batches"] = stats.n_batches;
  dict["n_rows"] = stats.n_rows;
  dict["real_tokens"] = stats.real_tokens;
  dict["padded_tokens"] = stats.padded_tokens;
  dict["n_prefix_calls"] = stats.n_prefix_calls;
  dict["queue_s"] = seconds(stats.queue_time);
  dict["max_queue_s"] = seconds(stats.max_queue_time);
  return dict;
}

}  // namespace

// Adds the class Scheduler to `m`; see _core.pyi for the Python signatures. The destructor waits
// for callbacks, which need the GIL.
void bind_scheduler(py::module_& m) {
  py::class_<Scheduler, std::shared_ptr<Scheduler>>(m, "Scheduler",
                                                    py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&make_scheduler), py::arg("scorer"), py::kw_only(), py::arg("n_workers"),
           py::arg("max_requests"), py::arg("max_tokens"), py::arg("batch_tokens"),
           py::arg("patience_s"), py::arg("max_begun"))
      .def("submit", &submit, py::arg("rules"), py::arg("threshold"), py::arg("turns"),
           py::arg("judged"), py::arg("explain"), py::arg("reuse_turns"), py::arg("deadline_s"),
           py::arg("on_answer"))
      .def("cancel", &Scheduler::cancel, py::arg("ticket"),
           py::call_guard<py::gil_scoped_release>())
      .def("shutdown", &Scheduler::shutdown, py::call_guard<py::gil_scoped_release>())
      .def("stats", &stats_dict);
}

}  // namespace csrm
