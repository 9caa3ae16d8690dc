// implementation("com.microsoft.onnxruntime:onnxruntime-android:1.20.0") or later; {{ file | comment }} lies in src/main/assets.
// Input {{ input.name | comment }} {{ input.shape | shape }} {{ input.dtype }}, output {{ output.name | comment }} {{ output.shape | shape }} {{ output.dtype }}.
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.graphics.Bitmap
import android.graphics.Color
import java.nio.ByteBuffer
import java.nio.ByteOrder

class OnnxSegmenter(model: ByteArray) { // the file's bytes: context.assets.open({{ file | kotlin }}).readBytes()
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(model, OrtSession.SessionOptions().apply { setIntraOpNumThreads(1) })
    private val input = ByteBuffer.allocateDirect({{ input | bytes }}).order(ByteOrder.nativeOrder())
    private val pixels = IntArray({{ height }} * {{ width }})

    /** Class of every pixel, {{ out_height }} rows of {{ out_width }}. */
    fun segment(bitmap: Bitmap): ByteArray {
        val scaled = Bitmap.createScaledBitmap(bitmap, {{ width }}, {{ height }}, true)
        scaled.getPixels(pixels, 0, {{ width }}, 0, 0, {{ width }}, {{ height }})
        input.rewind()
{% for channel in channels %}
        for (pixel in pixels) put(Color.{{ channel.name }}(pixel){% if not raw_bytes %}, {{ channel.mean }}f, {{ channel.std }}f{% endif %})
{% endfor %}
        input.rewind()
        val shape = longArrayOf({{ input.shape | join(", ") }})
{% if input.dtype == "float32" %}
        val image = OnnxTensor.createTensor(environment, input.asFloatBuffer(), shape)
{% else %}
        val image = OnnxTensor.createTensor(environment, input, shape, OnnxJavaType.{{ input.dtype | upper }})
{% endif %}
        image.use {
            session.run(mapOf({{ input.name | kotlin }} to image), setOf({{ output.name | kotlin }})).use { results ->
                return mask(results[0] as OnnxTensor)
            }
        }
    }

{% if raw_bytes %}
    private fun put(value: Int) { input.put(value.toByte()) }
{% elif input.dtype == "float32" %}
    private fun put(value: Int, mean: Float, std: Float) { input.putFloat((value - mean) / std) }
{% else %}
    private fun put(value: Int, mean: Float, std: Float) {
        val stored = Math.round((value - mean) / std / {{ input.scale }}f) + {{ input.zero_point }}
        input.put(stored.coerceIn({{ lowest }}, {{ highest }}).toByte())
    }
{% endif %}

    private fun mask(output: OnnxTensor): ByteArray {
{% if output.dtype == "float32" %}
        val values = output.floatBuffer
        fun score(place: Int): Float = values.get(place)
{% elif output.dtype == "int64" %}
        val values = output.longBuffer
{% elif output.dtype == "int32" %}
        val values = output.intBuffer
{% else %}
        val values = output.byteBuffer
        fun score(place: Int): Float = ((values.get(place).toInt() and 255) - {{ output.zero_point }}) * {{ output.scale }}f
{% endif %}
{% if kind == "mask" %}
        return ByteArray({{ out_height }} * {{ out_width }}) { values.get(it).toInt().toByte() }
{% elif classes == 1 %}
        return ByteArray({{ out_height }} * {{ out_width }}) { if (score(it) > {{ threshold }}f) 1 else 0 }
{% else %}
        return ByteArray({{ out_height }} * {{ out_width }}) { pixel ->
            (0 until {{ classes }}).maxByOrNull { score(it * {{ out_height * out_width }} + pixel) }!!.toByte()
        }
{% endif %}
    }
}
