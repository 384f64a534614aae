// One call of EncoderI8, worked off by whichever threads come (phases.h).
//
// Attention needs the keys and values of all rows; everything else of a layer goes row by row. So a
// phase is either the attention of one layer, in heads and queries, or all linear layers and norms
// between two attentions, in groups of rows: what a group computes never leaves its core, and
// threads wait for each other twice in a layer. Few rows, which would leave threads without a
// group, take a phase for each linear layer instead, cut by columns.
//
// The ladder; ms of one thread and of two for 128 tokens over a prefix of 256, MiniLM-L6 (Emerald
// Rapids, whose two cores other work shared; medians of quiet moments, gcc 12):
//   1. an operator for each: 7.4 and 6.8. Some fifty times a thread is woken, and reads what the
//      other has written.
//   2. layers in phases: 6.0 and 3.2. Groups of 16 and 32 rows: 6.2 (one thread) where those of 64
//      take 5.6 and of 128 5.2, which leave threads without one.
//   3. embeddings as well: 5.4 and 2.8.
//   4. a packed prefix, no keys and values where nobody asks for them: 4.4 and 2.4. This version.
// Of the last 60 % is LinearI8, a fifth attention, a tenth rounding and norms.
// Not: arithmetic, which is that of LinearI8, PrefixAttention and AddNorm.
#ifndef CSRM_KERNELS_ENCODER_I8_RUN_H_
#define CSRM_KERNELS_ENCODER_I8_RUN_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder_i8.h"
#include "prefix_attention.h"

namespace csrm::kernels {

// The `Work` of Phases.
class EncoderI8Run {
 public:
  // Bytes of `workspace`.
  static size_t workspace_size(const EncoderI8& layers, const EncoderI8Call& call);

  // `call` has passed the check of `layers`. Both and `workspace`, which is 64-byte aligned, live
  // longer.
  EncoderI8Run(const EncoderI8& layers, const EncoderI8Call& call, void* workspace);

  int64_t open(int n_workers);
  void run(int64_t unit) noexcept;
  // True if a thread's scratch memory could not be had: the outputs are worth nothing then.
  bool has_failed() const noexcept { return has_failed_.load(std::memory_order_relaxed); }

 private:
  // Where a step finds rows.
  enum class Place {
    kHidden,     // [B * T, hidden] the layer's states
    kProjected,  // [B * T, queries, keys, values]; of the last layer keys and values
    kContext,    // [.., hidden] of attention
    kRead,       // [B * J, hidden] the states of the rows that are read
    kQuery,      // [B * J, hidden]
    kThin,       // [.., hidden], this and the next between two attentions alone
    kWide,       // [.., inner]
  };
  static constexpr int kPlaces = 7;

  enum class Kind {
    kEmbed,      // -> `to`
    kRound,      // `from`, for `linear`
    kMultiply,   // -> `to`
    kAddNorm,    // `to` = norm of (`from` + `more`)
    kAdd,        // pooled = `from` + `more`
    kKeep,       // keys and values -> the outputs
    kTake,       // `from` and what it sees, of the rows that are read -> kRead
    kAttention,  // -> kContext; goes over all rows at once
  };
  struct Step {
    Kind kind;
    int64_t layer;
    bool is_read;  // goes over the rows that are read, else over all
    Place from, to, more;
    const LinearI8* linear;
    const NormParams* norm;
  };

  // Rows [first, end), with memory for kThin, kWide and what is rounded.
  struct Rows {
    int64_t first, end;
    float *thin, *wide;
    void* rounded;

    int64_t n() const { return end - first; }
  };

  // The parts of a workspace: their sum is its size.
  struct Layout;
  // How the steps [first_step, end_step) are cut into units.
  enum class Cut { kAttention, kGroups, kColumns, kRows };

  void plan();
  void plan_linear(Step step, const LinearI8& linear, Place from, Place to);
  void plan_attention(int64_t layer);
  void plan_rest(int64_t layer);

  int64_t n_rows(const Step& step) const;
  bool is_same_run(size_t step) const;  // as the step before it
  Rows rows_of(int64_t unit) const;     // of a phase that is cut by rows
  float* first_row(Place place) const { return places_[static_cast<int>(place)]; }
  float* at(Place place, const Rows& rows, int64_t row) const;
  PrefixAttentionParams attention(int64_t layer) const;

  void run_group(int64_t unit) noexcept;
  void run_step(const Step& step, const Rows& all, int64_t first, int64_t end) noexcept;
  void embed(int64_t first, int64_t end) noexcept;
  void multiply(const Step& step, const Rows& rows) noexcept;
  void norm_sum(const float* x, const float* more, const NormParams& norm, float* y,
                int64_t n_rows) noexcept;  // y may be x or more
  void add(const Step& step, const Rows& all, int64_t first, int64_t end) noexcept;
  void keep(const Step& step, int64_t first, int64_t end) noexcept;
  void take(int64_t first, int64_t end) noexcept;

  const EncoderI8& layers_;
  const EncoderI8Call& call_;
  std::vector<Step> steps_;
  float* places_[kPlaces] = {};
  int64_t widths_[kPlaces] = {};
  int64_t* read_visible_ = nullptr;  // [B, J]
  void* rounded_ = nullptr;          // of few rows

  // The phase.
  size_t first_step_ = 0, end_step_ = 0;
  Cut cut_ = Cut::kRows;
  int64_t n_units_ = 0;
  std::atomic<bool> has_failed_{false};
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ENCODER_I8_RUN_H_
