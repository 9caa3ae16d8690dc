package com.google.mediapipe.tasks.vision.imagesegmenter;

import com.google.mediapipe.framework.image.MPImage;
import java.util.Optional;

public class ImageSegmenterResult {
    public Optional<MPImage> categoryMask() {
        return Optional.empty();
    }
}
