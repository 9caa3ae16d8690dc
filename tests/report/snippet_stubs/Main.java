import android.graphics.Bitmap;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.tensorflow.lite.Interpreter;

/** Main IMAGE OUTPUT INPUT MASK: RGB bytes and the network's output to what the snippet fed to it and its mask. */
public final class Main {
    public static void main(String[] paths) throws Exception {
        byte[] rgb = Files.readAllBytes(Path.of(paths[0]));
        int[] argb = new int[rgb.length / 3];
        for (int i = 0; i < argb.length; i++) {
            argb[i] = (rgb[3 * i] & 255) << 16 | (rgb[3 * i + 1] & 255) << 8 | (rgb[3 * i + 2] & 255);
        }
        byte[] mask = new LiteRtSegmenter(ByteBuffer.wrap(Files.readAllBytes(Path.of(paths[1])))).segment(new Bitmap(argb));
        Files.write(Path.of(paths[2]), Interpreter.given);
        Files.write(Path.of(paths[3]), mask);
    }
}
