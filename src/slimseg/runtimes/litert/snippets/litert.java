// implementation("com.google.ai.edge.litert:litert:1.4.0") or later; {{ file | comment }} lies in src/main/assets.
// Input {{ input.name | comment }} {{ input.shape | shape }} {{ input.dtype }}, output {{ output.name | comment }} {{ output.shape | shape }} {{ output.dtype }}.
import android.graphics.Bitmap;
import android.graphics.Color;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.tensorflow.lite.Interpreter;

final class LiteRtSegmenter {
    private final Interpreter interpreter;
    private final ByteBuffer input = direct({{ input | bytes }});
    private final ByteBuffer output = direct({{ output | bytes }});
    private final int[] pixels = new int[{{ height }} * {{ width }}];

    LiteRtSegmenter(ByteBuffer model) { // the file, mapped or in a direct buffer
        interpreter = new Interpreter(model, new Interpreter.Options().setNumThreads(1));
    }

    /** Class of every pixel, {{ out_height }} rows of {{ out_width }}. */
    byte[] segment(Bitmap bitmap) {
        Bitmap scaled = Bitmap.createScaledBitmap(bitmap, {{ width }}, {{ height }}, true);
        scaled.getPixels(pixels, 0, {{ width }}, 0, 0, {{ width }}, {{ height }});
        input.rewind();
        for (int pixel : pixels) {
{% for channel in channels %}
            put(Color.{{ channel.name }}(pixel){% if not raw_bytes %}, {{ channel.mean }}f, {{ channel.std }}f{% endif %});
{% endfor %}
        }
        input.rewind();
        output.rewind();
        interpreter.run(input, output);
        byte[] mask = new byte[{{ out_height }} * {{ out_width }}];
        for (int pixel = 0; pixel < mask.length; pixel++) {
            mask[pixel] = (byte) classOf(pixel);
        }
        return mask;
    }

{% if raw_bytes %}
    private void put(int value) {
        input.put((byte) value);
    }
{% elif input.dtype == "float32" %}
    private void put(int value, float mean, float std) {
        input.putFloat((value - mean) / std);
    }
{% else %}
    private void put(int value, float mean, float std) {
        int stored = Math.round((value - mean) / std / {{ input.scale }}f) + {{ input.zero_point }};
        input.put((byte) Math.max({{ lowest }}, Math.min({{ highest }}, stored)));
    }
{% endif %}

{% if kind == "mask" %}
    private int classOf(int pixel) {
        return {{ "output.getInt(4 * pixel)" if output.dtype == "int32" else "(int) output.getLong(8 * pixel)" }};
    }
{% else %}
    private float score(int place) {
{% if output.dtype == "float32" %}
        return output.getFloat(4 * place);
{% elif output.dtype == "uint8" %}
        return ((output.get(place) & 255) - {{ output.zero_point }}) * {{ output.scale }}f;
{% else %}
        return (output.get(place) - {{ output.zero_point }}) * {{ output.scale }}f;
{% endif %}
    }

    private int classOf(int pixel) {
{% if classes == 1 %}
        return score(pixel) > {{ threshold }}f ? 1 : 0;
{% else %}
        int best = 0;
        for (int i = 1; i < {{ classes }}; i++) {
            if (score({{ classes }} * pixel + i) > score({{ classes }} * pixel + best)) {
                best = i;
            }
        }
        return best;
{% endif %}
    }
{% endif %}

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }
}
