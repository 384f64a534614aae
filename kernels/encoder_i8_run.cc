// The steps of a call of EncoderI8 and how they are cut into phases; see encoder_i8_run.h.
#include "encoder_i8_run.h"

#include <algorithm>

#include "add_norm.h"
#include "aligned.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kTileRows = 16;  // groups begin at multiples of it: a product takes so many
// A group's: its rows, beside a layer's weights, fill a core's second cache.
constexpr int64_t kGroupTiles = 4;
// More rows are always cut into groups.
constexpr int64_t kUngroupedRows = 256;
constexpr int64_t kRowsOfUnit = 8;  // of steps that are no products, where rows are few

int64_t n_tiles(int64_t n_rows) { return (n_rows + kTileRows - 1) / kTileRows; }

// Bytes of what a group or few rows are rounded to, by any linear layer.
size_t rounded_size(const EncoderI8& layers, int64_t n_rows) {
  size_t most = 0;
  for (int64_t i = 0; i < layers.n_layers(); ++i) {
    const EncoderI8::Layer& layer = layers.layer(i);
    for (const LinearI8* linear : {&layer.key_value, &layer.attended, &layer.up, &layer.down}) {
      most = std::max(most, linear->scratch_size(n_rows));
    }
  }
  return most;
}

}  // namespace

// Null pointers in one that is only measured.
struct EncoderI8Run::Layout {
  float *hidden, *projected, *context, *read, *query, *thin, *wide;
  int64_t* read_visible;
  void* rounded;
  size_t size;

  Layout(const EncoderI8& layers, const EncoderI8Call& call, void* memory) {
    const int64_t n_rows = call.n_batch * call.n_tokens, n_read = call.n_batch * call.n_pooled;
    const int64_t n_few = std::min(std::max(n_rows, n_read), kUngroupedRows);
    const int64_t width = layers.hidden();
    Parts parts(memory);
    hidden = parts.take<float>(n_rows * width);
    projected = parts.take<float>(n_rows * 3 * width);
    context = parts.take<float>(std::max(n_rows, n_read) * width);
    read = parts.take<float>(n_read * width);
    query = parts.take<float>(n_read * width);
    thin = parts.take<float>(n_few * width);
    wide = parts.take<float>(n_few * layers.inner());
    read_visible = parts.take<int64_t>(n_read);
    rounded = parts.take<char>(static_cast<int64_t>(rounded_size(layers, n_few)));
    size = parts.size();
  }
};

size_t EncoderI8Run::workspace_size(const EncoderI8& layers, const EncoderI8Call& call) {
  return Layout(layers, call, nullptr).size;
}

EncoderI8Run::EncoderI8Run(const EncoderI8& layers, const EncoderI8Call& call, void* workspace)
    : layers_(layers), call_(call) {
  const Layout layout(layers, call, workspace);
  const int64_t hidden = layers.hidden();
  const auto place = [this](Place place, float* memory, int64_t width) {
    places_[static_cast<int>(place)] = memory;
    widths_[static_cast<int>(place)] = width;
  };
  place(Place::kHidden, layout.hidden, hidden);
  place(Place::kProjected, layout.projected, 3 * hidden);
  place(Place::kContext, layout.context, hidden);
  place(Place::kRead, layout.read, hidden);
  place(Place::kQuery, layout.query, hidden);
  place(Place::kThin, layout.thin, hidden);
  place(Place::kWide, layout.wide, layers.inner());
  read_visible_ = layout.read_visible;
  rounded_ = layout.rounded;
  plan();
}

// The plan.

void EncoderI8Run::plan() {
  steps_.reserve(static_cast<size_t>(layers_.n_layers()) * 16);
  Step step{};
  step.kind = Kind::kEmbed;
  steps_.push_back(step);
  for (int64_t i = 0; i < layers_.n_layers(); ++i) {
    plan_attention(i);
    plan_rest(i);
  }
}

void EncoderI8Run::plan_linear(Step step, const LinearI8& linear, Place from, Place to) {
  step.linear = &linear;
  step.from = from;
  step.to = to;
  step.kind = Kind::kRound;
  steps_.push_back(step);
  step.kind = Kind::kMultiply;
  steps_.push_back(step);
}

void EncoderI8Run::plan_attention(int64_t layer) {
  const EncoderI8::Layer& weights = layers_.layer(layer);
  Step step{};
  step.layer = layer;
  plan_linear(step, weights.key_value, Place::kHidden, Place::kProjected);
  if (call_.key != nullptr) {
    step.kind = Kind::kKeep;
    steps_.push_back(step);
  }
  step.is_read = layers_.is_last(layer);
  if (step.is_read) {
    step.kind = Kind::kTake;
    steps_.push_back(step);
    plan_linear(step, weights.query[0], Place::kRead, Place::kQuery);
  }
  step.kind = Kind::kAttention;
  steps_.push_back(step);
}

void EncoderI8Run::plan_rest(int64_t layer) {
  const EncoderI8::Layer& weights = layers_.layer(layer);
  Step step{};
  step.layer = layer;
  step.is_read = layers_.is_last(layer);
  const Place states = step.is_read ? Place::kRead : Place::kHidden;
  plan_linear(step, weights.attended, Place::kContext, Place::kThin);
  step.kind = Kind::kAddNorm;
  step.norm = &weights.attention_norm;
  step.from = states;
  step.more = Place::kThin;
  step.to = states;
  steps_.push_back(step);
  plan_linear(step, weights.up, states, Place::kWide);
  plan_linear(step, weights.down, Place::kWide, Place::kThin);
  step.kind = step.is_read ? Kind::kAdd : Kind::kAddNorm;
  step.norm = &weights.output_norm;
  step.from = states;
  step.to = states;
  steps_.push_back(step);
}

int64_t EncoderI8Run::n_rows(const Step& step) const {
  return call_.n_batch * (step.is_read ? call_.n_pooled : call_.n_tokens);
}

bool EncoderI8Run::is_same_run(size_t step) const {
  const Step &before = steps_[step - 1], &now = steps_[step];
  return before.kind != Kind::kAttention && now.kind != Kind::kAttention &&
         before.is_read == now.is_read;
}

// Phases.

int64_t EncoderI8Run::open(int n_workers) {
  // A second thread most often comes during the first phase.
  const int64_t n_threads = std::max(n_workers, 2);
  for (n_units_ = 0; n_units_ == 0 && end_step_ < steps_.size();) {
    first_step_ = end_step_++;
    const Step& step = steps_[first_step_];
    const int64_t n = n_rows(step), tiles = n_tiles(n);
    if (step.kind == Kind::kAttention) {
      cut_ = Cut::kAttention;
      n_units_ = static_cast<int64_t>(prefix_attention_tasks(attention(step.layer), layers_.isa()));
      continue;
    }
    const auto take_while = [this](auto condition) {
      while (end_step_ < steps_.size() && is_same_run(end_step_) && condition(steps_[end_step_])) {
        ++end_step_;
      }
    };
    const bool is_run_begin = first_step_ == 0 || !is_same_run(first_step_);
    if (is_run_begin && (tiles >= 2 * n_threads || n > kUngroupedRows)) {
      cut_ = Cut::kGroups;
      take_while([](const Step&) { return true; });
      // As many groups for each thread.
      const int64_t each = (tiles + kGroupTiles * n_threads - 1) / (kGroupTiles * n_threads);
      n_units_ = std::min(tiles, each * n_threads);
    } else if (step.kind == Kind::kMultiply) {
      cut_ = Cut::kColumns;
      n_units_ = n > 0 ? n_threads : 0;
    } else {
      cut_ = Cut::kRows;
      take_while([](const Step& next) { return next.kind != Kind::kMultiply; });
      n_units_ = std::min(n_threads, (n + kRowsOfUnit - 1) / kRowsOfUnit);
    }
  }
  return n_units_;
}

void EncoderI8Run::run(int64_t unit) noexcept {
  const Step& first = steps_[first_step_];
  switch (cut_) {
    case Cut::kAttention: {
      const PrefixAttentionParams params = attention(first.layer);
      const auto task = static_cast<size_t>(unit);
      if (!run_prefix_attention_task(params, layers_.isa(), task)) has_failed_ = true;
      return;
    }
    case Cut::kGroups:
      return run_group(unit);
    case Cut::kColumns:
      first.linear->run_columns(rounded_, n_rows(first), first_row(first.to), unit, n_units_);
      return;
    case Cut::kRows: {
      const int64_t n = n_rows(first);
      const Rows all{0, n, first_row(Place::kThin), first_row(Place::kWide), rounded_};
      for (size_t i = first_step_; i < end_step_; ++i) {
        run_step(steps_[i], all, n * unit / n_units_, n * (unit + 1) / n_units_);
      }
      return;
    }
  }
}

void EncoderI8Run::run_group(int64_t unit) noexcept {
  const int64_t n = n_rows(steps_[first_step_]), tiles = n_tiles(n);
  Rows rows{};
  rows.first = tiles * unit / n_units_ * kTileRows;
  rows.end = std::min(n, tiles * (unit + 1) / n_units_ * kTileRows);
  const auto lay_out = [&](void* memory) {
    Parts parts(memory);
    rows.thin = parts.take<float>(rows.n() * layers_.hidden());
    rows.wide = parts.take<float>(rows.n() * layers_.inner());
    rows.rounded = parts.take<char>(static_cast<int64_t>(rounded_size(layers_, rows.n())));
    return parts.size();
  };
  void* scratch = thread_scratch(lay_out(nullptr));
  if (scratch == nullptr) {
    has_failed_ = true;
    return;
  }
  lay_out(scratch);
  for (size_t i = first_step_; i < end_step_; ++i) run_step(steps_[i], rows, rows.first, rows.end);
}

float* EncoderI8Run::at(Place place, const Rows& rows, int64_t row) const {
  const int64_t width = widths_[static_cast<int>(place)];
  if (place == Place::kThin) return rows.thin + (row - rows.first) * width;
  if (place == Place::kWide) return rows.wide + (row - rows.first) * width;
  return first_row(place) + row * width;
}

PrefixAttentionParams EncoderI8Run::attention(int64_t layer) const {
  const int64_t hidden = layers_.hidden();
  const bool is_last = layers_.is_last(layer);
  const float* projected = first_row(Place::kProjected);
  PrefixAttentionParams p{};
  p.query = is_last ? first_row(Place::kQuery) : projected;
  p.key_value = projected;
  p.prefix_key = call_.prefix_key;
  p.prefix_value = call_.prefix_value;
  p.visible = is_last ? read_visible_ : call_.visible;
  p.context = first_row(Place::kContext);
  p.n_batch = call_.n_batch;
  p.n_queries = is_last ? call_.n_pooled : call_.n_tokens;
  p.n_tokens = call_.n_tokens;
  p.n_prefix = call_.n_prefix;
  p.n_heads = p.n_kv_heads = layers_.n_heads();
  p.head_dim = layers_.head_dim();
  p.n_layers = layers_.n_layers();
  p.layer = layer;
  p.query_width = is_last ? hidden : 3 * hidden;
  p.key_value_width = (is_last ? 2 : 3) * hidden;
  p.key_offset = is_last ? 0 : hidden;
  p.value_offset = p.key_offset + hidden;
  p.scale = layers_.scale();
  p.is_bf16 = layers_.is_bf16();
  p.packed = call_.packed_prefix;
  return p;
}

// Steps, on the rows [first, end) of `all`.

void EncoderI8Run::run_step(const Step& step, const Rows& all, int64_t first,
                            int64_t end) noexcept {
  switch (step.kind) {
    case Kind::kEmbed:
      return embed(first, end);
    case Kind::kRound:
      step.linear->round_rows(at(step.from, all, all.first), all.n(), all.rounded,
                              first - all.first, end - all.first);
      return;
    case Kind::kMultiply:
      return multiply(step, all);
    case Kind::kAddNorm:
      return norm_sum(at(step.from, all, first), at(step.more, all, first), *step.norm,
                      at(step.to, all, first), end - first);
    case Kind::kAdd:
      return add(step, all, first, end);
    case Kind::kKeep:
      return keep(step, first, end);
    case Kind::kTake:
      return take(first, end);
    case Kind::kAttention:
      return;  // never among rows
  }
}

void EncoderI8Run::embed(int64_t first, int64_t end) noexcept {
  const EmbeddingParams& e = layers_.embedding();
  const int64_t hidden = layers_.hidden();
  for (int64_t row = first; row < end; ++row) {
    const int64_t id = call_.input_ids[row];
    const int8_t* token = e.tokens + id * hidden;
    const float* position = e.positions + call_.position_ids[row] * hidden;
    float* states = first_row(Place::kHidden) + row * hidden;
    for (int64_t i = 0; i < hidden; ++i) {
      states[i] = static_cast<float>(token[i]) * e.scale[id] + position[i];
    }
    const float* segment = e.segments + call_.segment_ids[row] * hidden;
    norm_sum(states, segment, e.norm, states, 1);
  }
}

void EncoderI8Run::multiply(const Step& step, const Rows& rows) noexcept {
  // The last layer has no queries in front of its keys, so its rows are shorter.
  float* y = step.to == Place::kProjected ? first_row(step.to) + rows.first * step.linear->n_out()
                                          : at(step.to, rows, rows.first);
  const size_t n = step.linear->n_tasks(rows.n());
  for (size_t i = 0; i < n; ++i) step.linear->run_task(rows.rounded, rows.n(), y, i);
}

void EncoderI8Run::norm_sum(const float* x, const float* more, const NormParams& norm, float* y,
                            int64_t n_rows) noexcept {
  AddNormParams p{};
  p.x = x;
  p.residual = more;
  p.weight = norm.weight;
  p.bias = norm.bias;
  p.y = y;
  p.n_rows = n_rows;
  p.n_columns = layers_.hidden();
  p.epsilon = layers_.epsilon();
  const size_t n = add_norm_tasks(p);
  for (size_t i = 0; i < n; ++i) run_add_norm_task(p, layers_.isa(), i);
}

void EncoderI8Run::add(const Step& step, const Rows& all, int64_t first, int64_t end) noexcept {
  const float *x = at(step.from, all, first), *more = at(step.more, all, first);
  float* pooled = call_.pooled + first * layers_.hidden();
  const int64_t n = (end - first) * layers_.hidden();
  for (int64_t i = 0; i < n; ++i) pooled[i] = x[i] + more[i];
}

void EncoderI8Run::keep(const Step& step, int64_t first, int64_t end) noexcept {
  const int64_t size = layers_.head_dim(), n_heads = layers_.n_heads(), hidden = layers_.hidden();
  const int64_t width = (layers_.is_last(step.layer) ? 2 : 3) * hidden, n = call_.n_tokens;
  for (int64_t row = first; row < end; ++row) {
    const int64_t entry = row / n * layers_.n_layers() + step.layer, token = row % n;
    const float* key = first_row(Place::kProjected) + (row + 1) * width - 2 * hidden;
    for (int64_t head = 0; head < n_heads; ++head, key += size) {
      const int64_t to = ((entry * n_heads + head) * n + token) * size;
      std::copy_n(key, size, call_.key + to);
      std::copy_n(key + hidden, size, call_.value + to);
    }
  }
}

void EncoderI8Run::take(int64_t first, int64_t end) noexcept {
  const float* states = first_row(Place::kHidden);
  const int64_t hidden = layers_.hidden();
  for (int64_t row = first; row < end; ++row) {
    const int64_t from =
        row / call_.n_pooled * call_.n_tokens + std::max<int64_t>(call_.pooled_at[row], 0);
    std::copy_n(states + from * hidden, hidden, first_row(Place::kRead) + row * hidden);
    read_visible_[row] = call_.visible[from];
  }
}

}  // namespace csrm::kernels
