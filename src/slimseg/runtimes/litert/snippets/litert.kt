// implementation("com.google.ai.edge.litert:litert:1.4.0") or later; {{ file | comment }} lies in src/main/assets.
// Input {{ input.name | comment }} {{ input.shape | shape }} {{ input.dtype }}, output {{ output.name | comment }} {{ output.shape | shape }} {{ output.dtype }}.
import android.graphics.Bitmap
import android.graphics.Color
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class LiteRtSegmenter(model: ByteBuffer) { // the file, mapped or in a direct buffer
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(1))
    private val input = direct({{ input | bytes }})
    private val output = direct({{ output | bytes }})
    private val pixels = IntArray({{ height }} * {{ width }})

    /** Class of every pixel, {{ out_height }} rows of {{ out_width }}. */
    fun segment(bitmap: Bitmap): ByteArray {
        val scaled = Bitmap.createScaledBitmap(bitmap, {{ width }}, {{ height }}, true)
        scaled.getPixels(pixels, 0, {{ width }}, 0, 0, {{ width }}, {{ height }})
        input.rewind()
        for (pixel in pixels) {
{% for channel in channels %}
            put(Color.{{ channel.name }}(pixel){% if not raw_bytes %}, {{ channel.mean }}f, {{ channel.std }}f{% endif %})
{% endfor %}
        }
        input.rewind()
        output.rewind()
        interpreter.run(input, output)
        return ByteArray({{ out_height }} * {{ out_width }}) { classOf(it).toByte() }
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

{% if kind == "mask" %}
    private fun classOf(pixel: Int): Int = {{ "output.getInt(4 * pixel)" if output.dtype == "int32" else "output.getLong(8 * pixel).toInt()" }}
{% else %}
{% if output.dtype == "float32" %}
    private fun score(place: Int): Float = output.getFloat(4 * place)
{% elif output.dtype == "uint8" %}
    private fun score(place: Int): Float = ((output.get(place).toInt() and 255) - {{ output.zero_point }}) * {{ output.scale }}f
{% else %}
    private fun score(place: Int): Float = (output.get(place) - {{ output.zero_point }}) * {{ output.scale }}f
{% endif %}

{% if classes == 1 %}
    private fun classOf(pixel: Int): Int = if (score(pixel) > {{ threshold }}f) 1 else 0
{% else %}
    private fun classOf(pixel: Int): Int = (0 until {{ classes }}).maxByOrNull { score({{ classes }} * pixel + it) }!!
{% endif %}
{% endif %}

    private fun direct(bytes: Int) = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
}
