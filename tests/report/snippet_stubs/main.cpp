// main FOLDER WIDTH HEIGHT: FOLDER/image holds RGB bytes; writes FOLDER/input and FOLDER/mask.
#include <iterator>

#include "snippet.cpp"

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  std::ifstream image(folder + "/image", std::ios::binary);
  const std::vector<char> rgb((std::istreambuf_iterator<char>(image)), std::istreambuf_iterator<char>());
  NcnnSegmenter segmenter(folder);
  if (!segmenter.loaded()) return 1;
  const auto* pixels = reinterpret_cast<const unsigned char*>(rgb.data());
  const auto mask = segmenter.segment(pixels, std::atoi(arguments[2]), std::atoi(arguments[3]));
  std::ofstream(folder + "/mask", std::ios::binary).write(reinterpret_cast<const char*>(mask.data()), mask.size());
  const ncnn::Mat& in = ncnn::given;
  std::ofstream(folder + "/input", std::ios::binary)
      .write(reinterpret_cast<const char*>(in.begin()), sizeof(float) * in.w * in.h * in.c);
}
