package org.tensorflow.lite;

import java.nio.ByteBuffer;

/** Gives what it was made of as its output, and keeps its input. */
public class Interpreter {
    public static byte[] given;
    private final ByteBuffer answer;

    public static class Options {
        public Options setNumThreads(int threads) {
            return this;
        }
    }

    public Interpreter(ByteBuffer answer, Options options) {
        this.answer = answer;
    }

    public void run(Object input, Object output) {
        ByteBuffer from = (ByteBuffer) input;
        given = new byte[from.remaining()];
        from.get(given);
        answer.rewind();
        ((ByteBuffer) output).put(answer);
    }
}
