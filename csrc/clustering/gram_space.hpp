// Ball and Hall's Space (ball_hall.hpp) on dot products. Centres are rows of distances: what a mean, a split or a lump
// does to the distances has a closed form, so only a split looks at coordinates.
#pragma once

#include <vector>

#include "ball_hall.hpp"
#include "gram_group.hpp"

namespace rlsft::isodata_detail {

template <typename X>
class GramSpace : public GramGroup<X> {
 public:
  // The centres start at rows of the group. In cosine geometry (rows of unit length) they stay on the unit sphere.
  void start(const IsodataOptions& options);

  void expect(bool, bool) {}
  double moved() const { return 0; }  // not known here: a group with a `tol` is clustered by coordinates
  void settle(const std::vector<std::int32_t>&, const std::vector<double>&) {}
  Bounded most_variance(std::int64_t c) const { return total_variance(c); }

  std::int64_t count() const { return count_; }
  void assign(std::int32_t* labels);
  void keep(const std::vector<std::uint8_t>& flags);
  void move_to_means(const std::vector<std::int32_t>& labels, const std::vector<double>& sizes);
  Bounded total_variance(std::int64_t c) const;
  Widest widest(std::int64_t c) { return this->widest_coordinate(c); }
  Bounded spread(std::int64_t c, bool squared) const;
  void split(std::int64_t c, std::int64_t axis, double step);
  Bounded center_distance(std::int64_t a, std::int64_t b);
  void lump(std::int64_t a, std::int64_t b, const std::vector<double>& sizes);

  template <typename T>
  std::int64_t finish(const std::vector<std::uint8_t>& is_noise, const double* scores, std::int32_t* labels, T* centers,
                      std::int64_t* medoids) {
    return GramGroup<X>::finish(count_, on_sphere_, is_noise.data(), scores, labels, centers, medoids);
  }

 private:
  using Base = GramGroup<X>;
  using Base::center_error_, Base::decider_, Base::distances, Base::dot_error_, Base::mean_, Base::n_,
      Base::self_, Base::set_of_row_, Base::size_, Base::squared_error_, Base::stride_, Base::sums_;

  void project_means();
  void move_along(std::int64_t axis, double step, double center_q, const double* from, double* to) const;
  double length(std::int64_t c) const { return std::sqrt(self_[c]); }

  bool on_sphere_ = false;
  std::int64_t count_ = 0;
};

}  // namespace rlsft::isodata_detail
