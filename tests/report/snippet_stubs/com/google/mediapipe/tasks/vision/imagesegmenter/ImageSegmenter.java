package com.google.mediapipe.tasks.vision.imagesegmenter;

import android.content.Context;
import com.google.mediapipe.framework.image.MPImage;
import com.google.mediapipe.tasks.core.BaseOptions;
import com.google.mediapipe.tasks.vision.core.RunningMode;

public class ImageSegmenter {
    public static class ImageSegmenterOptions {
        public static class Builder {
            public Builder setBaseOptions(BaseOptions options) {
                return this;
            }

            public Builder setRunningMode(RunningMode mode) {
                return this;
            }

            public Builder setOutputCategoryMask(boolean wanted) {
                return this;
            }

            public Builder setOutputConfidenceMasks(boolean wanted) {
                return this;
            }

            public ImageSegmenterOptions build() {
                return new ImageSegmenterOptions();
            }
        }

        public static Builder builder() {
            return new Builder();
        }
    }

    public static ImageSegmenter createFromOptions(Context context, ImageSegmenterOptions options) {
        return new ImageSegmenter();
    }

    public ImageSegmenterResult segment(MPImage image) {
        return new ImageSegmenterResult();
    }
}
