// Add {{ file | comment }} to the target; Xcode compiles it into the app as {{ stem | comment }}.mlmodelc. iOS 16 or later.
// Input {{ input.name | comment }} {{ input.shape | shape }}, output {{ output.name | comment }} {{ output.shape | shape }} {{ output.dtype }}.
import CoreML
import Vision

final class CoreMLSegmenter {
    private let model: VNCoreMLModel

    init() throws {
        let url = Bundle.main.url(forResource: {{ stem | quoted }}, withExtension: "mlmodelc")!
        model = try VNCoreMLModel(for: MLModel(contentsOf: url, configuration: MLModelConfiguration()))
    }

    /// Class of every pixel, {{ out_height }} rows of {{ out_width }}. Vision scales the image to {{ width }}x{{ height }}.
    func segment(_ image: CGImage) throws -> [Int] {
        let request = VNCoreMLRequest(model: model)
        request.imageCropAndScaleOption = .scaleFill
        try VNImageRequestHandler(cgImage: image).perform([request])
        let observations = request.results as? [VNCoreMLFeatureValueObservation] ?? []
        guard let output = observations.first(where: { $0.featureName == {{ output.name | quoted }} })?.featureValue.multiArrayValue
        else { return [] }
{% if kind == "mask" %}
        return MLShapedArray<Int32>(converting: output).scalars.map(Int.init)
{% elif classes == 1 %}
        return MLShapedArray<Float>(converting: output).scalars.map { $0 > {{ threshold }} ? 1 : 0 }
{% else %}
        let scores = MLShapedArray<Float>(converting: output).scalars // class by class, {{ classes }} of them
        let count = {{ out_height }} * {{ out_width }}
        return (0..<count).map { pixel in
            (0..<{{ classes }}).max { scores[$0 * count + pixel] < scores[$1 * count + pixel] }!
        }
{% endif %}
    }
}
