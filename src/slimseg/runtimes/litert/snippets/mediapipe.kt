// implementation("com.google.mediapipe:tasks-vision:0.10.26") or later; {{ file | comment }} lies in src/main/assets.
import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.framework.image.ByteBufferExtractor
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imagesegmenter.ImageSegmenter
import java.nio.ByteBuffer

fun createSegmenter(context: Context): ImageSegmenter = ImageSegmenter.createFromOptions(
    context,
    ImageSegmenter.ImageSegmenterOptions.builder()
        .setBaseOptions(BaseOptions.builder().setModelAssetPath({{ file | kotlin }}).build())
        .setRunningMode(RunningMode.IMAGE)
        .setOutputCategoryMask(true)
        .setOutputConfidenceMasks(false)
        .build()
)

/** One byte per pixel of the bitmap (ARGB_8888, any size): {{ category | comment }}. */
fun segment(segmenter: ImageSegmenter, bitmap: Bitmap): ByteBuffer {
    val result = segmenter.segment(BitmapImageBuilder(bitmap).build())
    return ByteBufferExtractor.extract(result.categoryMask().get())
}
