// As much of ncnn's net.h as the snippet uses. The `.param` holds width, height and channels of an answer and the `.bin`
// its numbers; what the snippet feeds in is kept in `given`.
#pragma once
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace ncnn {

class Mat {
 public:
  enum PixelType { PIXEL_RGB = 1, PIXEL_BGR = 2, PIXEL_RGB2BGR = PIXEL_RGB | (PIXEL_BGR << 16) };
  int w = 0, h = 0, c = 0;

  void create(int width, int height, int channels) {
    w = width, h = height, c = channels;
    data_ = std::make_shared<std::vector<float>>(w * h * c);
  }
  static Mat from_pixels_resize(const unsigned char* pixels, int type, int w, int h, int target_w, int target_h) {
    if (w != target_w || h != target_h) std::abort();
    Mat result;
    result.create(w, h, 3);
    for (int i = 0; i < 3 * w * h; ++i) {
      result.begin()[(type == PIXEL_RGB2BGR ? 2 - i % 3 : i % 3) * w * h + i / 3] = pixels[i];
    }
    return result;
  }
  void substract_mean_normalize(const float* mean, const float* norm) {
    for (int i = 0; i < w * h * c; ++i) begin()[i] = (begin()[i] - mean[i / (w * h)]) * norm[i / (w * h)];
  }
  Mat channel(int k) const {
    Mat result = *this;
    result.c = 1, result.start_ = k * w * h;
    return result;
  }
  float* row(int y) const { return begin() + y * w; }
  float* begin() const { return data_->data() + start_; }

 private:
  std::shared_ptr<std::vector<float>> data_;
  int start_ = 0;
};

struct Option {
  int num_threads = 8;
};

inline Mat given;

class Extractor {
 public:
  explicit Extractor(Mat answer) : answer_(answer) {}
  int input(const char* name, const Mat& value) {
    given = value;
    return std::string(name) == "in0" ? 0 : -1;
  }
  int extract(const char* name, Mat& value) {
    value = answer_;
    return std::string(name) == "out0" ? 0 : -1;
  }

 private:
  Mat answer_;
};

class Net {
 public:
  Option opt;
  int load_param(const char* path) {
    int w = 0, h = 0, c = 0;
    std::ifstream(path) >> w >> h >> c;
    answer_.create(w, h, c);
    return w * h * c > 0 ? 0 : -1;
  }
  int load_model(const char* path) {
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(answer_.begin()), sizeof(float) * answer_.w * answer_.h * answer_.c);
    return file ? 0 : -1;
  }
  Extractor create_extractor() const { return Extractor(answer_); }

 private:
  Mat answer_;
};
}  // namespace ncnn
