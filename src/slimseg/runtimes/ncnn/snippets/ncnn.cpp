// Link with ncnn; {{ file | comment }} and {{ weights | comment }} lie in `folder`.
// Input {{ input.name | comment }} {{ input.shape | shape }}, output {{ output.name | comment }} {{ output.shape | shape }}, both (channels, height, width).
#include <cstdint>
#include <string>
#include <vector>

#include "net.h"

class NcnnSegmenter {
 public:
  explicit NcnnSegmenter(const std::string& folder) {
    net_.opt.num_threads = 1;
    loaded_ = net_.load_param((folder + "/" + {{ file | quoted }}).c_str()) == 0 &&
              net_.load_model((folder + "/" + {{ weights | quoted }}).c_str()) == 0;
  }

  bool loaded() const { return loaded_; }

  // Class of every pixel, {{ out_height }} rows of {{ out_width }}, of an RGB image of width x height. Empty if it could not be run.
  std::vector<std::uint8_t> segment(const std::uint8_t* rgb, int width, int height) const {
    ncnn::Mat in = ncnn::Mat::from_pixels_resize(rgb, ncnn::Mat::{{ "PIXEL_RGB2BGR" if pixel_format == "BGR" else "PIXEL_RGB" }}, width, height, {{ width }}, {{ height }});
{% if not takes_pixels %}
    const float mean[3] = { {{- channels[0].mean }}f, {{ channels[1].mean }}f, {{ channels[2].mean }}f};
    const float scale[3] = {1 / {{ channels[0].std }}f, 1 / {{ channels[1].std }}f, 1 / {{ channels[2].std }}f};
    in.substract_mean_normalize(mean, scale);
{% endif %}
    ncnn::Extractor extractor = net_.create_extractor();
    ncnn::Mat out;
    if (extractor.input({{ input.name | quoted }}, in) != 0 || extractor.extract({{ output.name | quoted }}, out) != 0) return {};
    std::vector<std::uint8_t> mask;
    mask.reserve({{ out_height }} * {{ out_width }});
    for (int y = 0; y < {{ out_height }}; ++y) {
      for (int x = 0; x < {{ out_width }}; ++x) {
{% if kind == "mask" %}
        mask.push_back(static_cast<std::uint8_t>(out.channel(0).row(y)[x]));
{% elif classes == 1 %}
        mask.push_back(out.channel(0).row(y)[x] > {{ threshold }}f ? 1 : 0);
{% else %}
        int best = 0;
        for (int c = 1; c < {{ classes }}; ++c) {
          if (out.channel(c).row(y)[x] > out.channel(best).row(y)[x]) best = c;
        }
        mask.push_back(static_cast<std::uint8_t>(best));
{% endif %}
      }
    }
    return mask;
  }

 private:
  ncnn::Net net_;
  bool loaded_ = false;
};
