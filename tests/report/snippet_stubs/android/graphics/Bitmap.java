package android.graphics;

/** Pixels as ARGB, of the size that is asked for. */
public class Bitmap {
    private final int[] argb;

    public Bitmap(int[] argb) {
        this.argb = argb;
    }

    public static Bitmap createScaledBitmap(Bitmap source, int width, int height, boolean filter) {
        if (source.argb.length != width * height) {
            throw new IllegalArgumentException("size");
        }
        return source;
    }

    public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {
        System.arraycopy(argb, 0, pixels, 0, width * height);
    }
}
