/*
 * A conversation with an avatar: microphone or WAV file in; frames, voice and captions out.
 *
 *     java Avatar.java --say "Hello, I am your avatar."
 *     java Avatar.java --wav question.wav --out answer
 *     java Avatar.java --mic --speaker --window
 *
 * JDK 17 and nothing else. Writes each frame at the moment when it is shown (OUT/0001-00042.jpg:
 * response and frame) and the voice (OUT/voice.wav). Copy the file, and put your own window and
 * loudspeaker in the place of `Output`: everything else stays.
 */

import java.awt.Dimension;
import java.awt.Graphics;
import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import javax.imageio.ImageIO;
import javax.sound.sampled.AudioFileFormat;
import javax.sound.sampled.AudioFormat;
import javax.sound.sampled.AudioInputStream;
import javax.sound.sampled.AudioSystem;
import javax.sound.sampled.SourceDataLine;
import javax.swing.JFrame;
import javax.swing.JPanel;
import javax.swing.SwingUtilities;

public class Avatar {
    static final int RATE = 24_000;               // samples per second, in both directions
    static final int PACKET = RATE / 50 * 2;      // bytes of 20 ms
    static final int HEADER_BYTES = 24;
    static final int FRAME = 1, AUDIO = 2;
    static final double PATIENCE_S = 1.0;         // how long the voice waits for its first frame
    static final AudioFormat PCM = new AudioFormat(RATE, 16, 1, true, false);

    record Frame(double ptsS, int number, int[] region, byte[] jpeg) {}

    // -- where frames, sound and captions go -----------------------------------------------------

    /** Here into files, and to a window and a loudspeaker if wanted. */
    static class Output {
        private final Path folder;
        private final ByteArrayOutputStream voice = new ByteArrayOutputStream();
        private final SourceDataLine line;
        private final Picture picture;

        Output(Path folder, boolean speaker, boolean window) throws Exception {
            this.folder = Files.createDirectories(folder);
            line = speaker ? AudioSystem.getSourceDataLine(PCM) : null;
            if (line != null) {
                line.open(PCM, PACKET * 5);
                line.start();
            }
            picture = window ? new Picture() : null;
        }

        void sound(byte[] pcm, int from, int to) {
            voice.write(pcm, from, to - from);
            if (line != null) line.write(pcm, from, to - from);
        }

        /** Seconds from {@link #sound} to the ear. */
        double latencyS() {
            return line == null ? 0 : (line.getBufferSize() - line.available()) / 2.0 / RATE;
        }

        void frame(int response, Frame frame) throws IOException {
            var name = String.format("%04d-%05d.jpg", response, frame.number());
            Files.write(folder.resolve(name), frame.jpeg());
            if (picture != null) picture.show(frame);
        }

        void caption(String who, String text) {
            System.out.println(who + ": " + text);
        }

        void close() throws IOException {
            var bytes = voice.toByteArray();
            var stream = new AudioInputStream(new ByteArrayInputStream(bytes), PCM, bytes.length / 2);
            AudioSystem.write(stream, AudioFileFormat.Type.WAVE, folder.resolve("voice.wav").toFile());
            if (line != null) line.close();
        }
    }

    /** A window with the avatar's picture. */
    static class Picture extends JPanel {
        private BufferedImage image = new BufferedImage(512, 512, BufferedImage.TYPE_INT_RGB);

        Picture() {
            setPreferredSize(new Dimension(512, 512));
            SwingUtilities.invokeLater(() -> {
                var window = new JFrame("Avatar");
                window.setDefaultCloseOperation(JFrame.EXIT_ON_CLOSE);
                window.add(this);
                window.pack();
                window.setVisible(true);
            });
        }

        void show(Frame frame) throws IOException {
            var jpeg = ImageIO.read(new ByteArrayInputStream(frame.jpeg()));
            SwingUtilities.invokeLater(() -> {
                int[] at = frame.region();
                if (image.getWidth() < at[0] + at[2]) {
                    image = new BufferedImage(at[0] + at[2], at[1] + at[3], BufferedImage.TYPE_INT_RGB);
                }
                image.getGraphics().drawImage(jpeg, at[0], at[1], at[2], at[3], null);
                repaint();
            });
        }

        @Override
        protected void paintComponent(Graphics graphics) {
            graphics.drawImage(image, 0, 0, getWidth(), getHeight(), null);
        }
    }

    // -- one response ----------------------------------------------------------------------------

    /** Plays its sound in real time, and shows each frame when its sound is heard. */
    static class Playback {
        final String id;
        final int generation;
        final ArrayDeque<Frame> frames = new ArrayDeque<>();
        boolean allHere;                          // no more sound will come
        private final Output output;
        private byte[] pcm = new byte[RATE * 2];  // all of its sound so far
        private int size, played;                 // bytes of it
        private double startedS = -1, firstSoundS = -1;
        private int shown, late;

        Playback(Map<String, Object> response, Output output) {
            id = (String) response.get("id");
            generation = ((Number) response.get("generation")).intValue();
            this.output = output;
        }

        void sound(byte[] more) {
            if (size + more.length > pcm.length) pcm = Arrays.copyOf(pcm, 2 * (size + more.length));
            System.arraycopy(more, 0, pcm, size, more.length);
            size += more.length;
        }

        boolean playing() {
            return startedS >= 0;
        }

        boolean over() {
            return allHere && played >= size;
        }

        double positionS() {
            return Math.max(0, played / 2.0 / RATE - output.latencyS());
        }

        /** Play and show what is due. Called every 10 ms. */
        void step(double nowS) throws IOException {
            if (size == 0) return;
            if (startedS < 0) {
                if (firstSoundS < 0) firstSoundS = nowS;
                boolean patient = nowS - firstSoundS < PATIENCE_S;
                if (frames.isEmpty() && patient && !allHere) return;
                startedS = nowS;
            }
            int due = 2 * (int) ((nowS - startedS) * RATE);
            if (due > size) {
                due = size;
                if (!allHere) startedS = nowS - size / 2.0 / RATE;  // the network was slow
            }
            output.sound(pcm, played, due);
            played = due;
            double heardS = positionS();
            Frame newest = null;  // older ones than the newest are not worth showing
            while (!frames.isEmpty() && frames.peek().ptsS() <= heardS) newest = frames.poll();
            if (newest != null) {
                output.frame(generation, newest);
                shown++;
                if (heardS - newest.ptsS() > 0.04) late++;
            }
        }

        /** What the server wants to know twice a second. */
        String report() {
            return Json.text(Map.of("type", "avatar.playback", "response_id", id,
                    "position_ms", 1000 * positionS(), "frames_shown", shown, "frames_late", late));
        }
    }

    // -- the session -----------------------------------------------------------------------------

    private final Map<String, String> options;
    private final Output output;
    private final HttpClient http = HttpClient.newHttpClient();
    private WebSocket socket;
    // Messages are sent one after the other: a WebSocket of the JDK allows no two at once. Each
    // connection has its own sender, since a message to a lost one may wait for ever.
    private ExecutorService sender;
    private volatile boolean ready;
    private volatile double lastEventS = nowS();
    private Playback playback;                    // the response that is played
    private String token;                         // with it a new connection goes on with this session
    private long received, sent;                  // messages of this session
    private final ArrayDeque<Kept> kept = new ArrayDeque<>();  // what was sent last
    // `synchronized (this)` guards all of these but `ready` and `lastEventS`.

    /** A message that may have got lost: a String or a byte[]. */
    record Kept(long number, Object message) {}

    Avatar(Map<String, String> options, Output output) {
        this.options = options;
        this.output = output;
    }

    /** Connect, and again when the connection is lost. Returns when the thread is interrupted. */
    void run() {
        double delayS = 0.5;
        while (true) {
            try {
                var listener = new Listener();
                var builder = http.newWebSocketBuilder().connectTimeout(Duration.ofSeconds(10));
                var key = options.get("token");
                if (key != null) builder.header("Authorization", "Bearer " + key);
                builder.buildAsync(URI.create(options.get("url") + query()), listener).join();
                var closed = listener.closed.join();
                synchronized (this) {
                    ready = false;                // from now on messages wait
                }
                listener.sender.shutdownNow();
                System.out.println("connection lost: " + closed);
                if (listener.answered) delayS = 0.5;
                if (List.of("1000", "1001", "4004").contains(closed.split(" ")[0])) {
                    synchronized (this) {
                        token = null;             // that session has ended: begin another
                    }
                }
            } catch (CompletionException error) {
                System.out.println("no connection: " + error.getCause());
            }
            try {
                Thread.sleep((long) (1000 * delayS));
            } catch (InterruptedException stopped) {
                return;
            }
            delayS = Math.min(8, 2 * delayS);
        }
    }

    private synchronized String query() {
        return token == null ? "" : "?resume=" + token + "&received=" + received;
    }

    /** A new session: nothing of an old one counts. */
    private void begin() {
        token = null;
        received = 1;
        sent = 0;
        kept.clear();
        if (playback != null) playback.allHere = true;  // the rest of it does not come
        ready = true;
        var format = Map.of("type", "audio/pcm", "rate", RATE);
        var avatar = new HashMap<String, Object>();
        avatar.put("video", Map.of("encoding", "binary"));
        if (options.containsKey("mode")) avatar.put("mode", options.get("mode"));
        if (options.containsKey("avatar")) avatar.put("id", options.get("avatar"));
        var audio = Map.of("input", Map.of("format", format), "output", Map.of("format", format));
        var session = Map.of("type", "realtime", "audio", audio, "avatar", avatar);
        send(Json.text(Map.of("type", "session.update", "session", session)));
    }

    /** The same session: send again what did not arrive. */
    private void resume(long arrived) {
        for (var one : kept) if (one.number() > arrived) transmit(one.message());
        ready = true;
    }

    /** An event, now or when there is a connection again. */
    void send(String event) {
        keep(event);
    }

    /** The microphone: PCM16 at RATE. Sound may be sent as it is: no base64 is needed. */
    void hear(byte[] pcm) {
        keep(pcm);
    }

    private synchronized void keep(Object message) {
        kept.add(new Kept(++sent, message));
        if (kept.size() > 3000) kept.remove();    // a minute
        if (ready) transmit(message);
    }

    private void transmit(Object message) {
        var now = socket;
        sender.execute(() -> ignoreLost(message instanceof String text
                ? now.sendText(text, true)
                : now.sendBinary(ByteBuffer.wrap((byte[]) message), true)));
    }

    private static void ignoreLost(CompletableFuture<WebSocket> sent) {
        try {
            sent.join();
        } catch (CompletionException error) {
            // `run` connects again
        }
    }

    /** Puts messages together, which come in parts. */
    private class Listener implements WebSocket.Listener {
        final CompletableFuture<String> closed = new CompletableFuture<>();
        final ExecutorService sender = Executors.newSingleThreadExecutor(Avatar::daemon);
        volatile boolean answered;
        private final StringBuilder text = new StringBuilder();
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        @Override
        public void onOpen(WebSocket ws) {
            synchronized (Avatar.this) {
                socket = ws;
                Avatar.this.sender = sender;
            }
            ws.request(1);
        }

        @Override
        public CompletionStage<?> onText(WebSocket ws, CharSequence part, boolean last) {
            text.append(part);
            if (last) {
                answered = true;
                receive(Json.object(text.toString()));
                text.setLength(0);
            }
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket ws, ByteBuffer part, boolean last) {
            byte[] data = new byte[part.remaining()];
            part.get(data);
            bytes.writeBytes(data);
            if (last) {
                receive(bytes.toByteArray());
                bytes.reset();
            }
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
            closed.complete(code + " " + reason);
            return null;
        }

        @Override
        public void onError(WebSocket ws, Throwable error) {
            closed.complete(error.toString());
        }
    }

    private synchronized void receive(byte[] message) {
        received++;
        lastEventS = nowS();
        var header = ByteBuffer.wrap(message).order(ByteOrder.LITTLE_ENDIAN);
        int generation = Short.toUnsignedInt(header.getShort(2));
        if (playback == null || playback.generation != generation) return;  // it was interrupted
        byte[] payload = Arrays.copyOfRange(message, HEADER_BYTES, message.length);
        if (message[0] == AUDIO) {
            playback.sound(payload);
        } else if (message[0] == FRAME) {
            int[] region = new int[4];
            for (int i = 0; i < 4; i++) region[i] = Short.toUnsignedInt(header.getShort(16 + 2 * i));
            playback.frames.add(new Frame(header.getLong(8) / 1e6, header.getInt(4), region, payload));
        }
    }

    private synchronized void receive(Map<String, Object> event) {
        received++;
        lastEventS = nowS();
        switch ((String) event.get("type")) {
            case "session.created" -> begin();
            case "avatar.resumable" -> token = (String) event.get("token");
            case "avatar.resumed" -> resume(((Number) event.get("received")).longValue());
            case "response.created" -> playback = new Playback(Json.at(event, "response"), output);
            case "response.output_audio.done" -> {
                if (playback != null && playback.id.equals(event.get("response_id"))) {
                    playback.allHere = true;
                }
            }
            case "response.output_audio_transcript.done" -> caption("avatar", event);
            case "conversation.item.input_audio_transcription.completed" -> caption("you", event);
            // The user speaks: drop what is not heard yet. The server knows from the reports how
            // much was heard.
            case "input_audio_buffer.speech_started" -> playback = null;
            case "response.done" -> {
                var response = Json.at(event, "response");
                var why = Json.at(response, "status_details");
                if ("failed".equals(response.get("status"))) {
                    System.out.println("failed: " + Json.at(why, "error").get("message"));
                } else if ("cancelled".equals(response.get("status"))) {
                    var reason = why.get("reason");
                    System.out.println("interrupted: " + (reason == null ? "replaced" : reason));
                }
            }
            case "conversation.item.truncated" ->  // it was complete, and still played
                System.out.println("interrupted: heard " + event.get("audio_end_ms") + " ms");
            case "error" -> System.out.println("error: " + Json.at(event, "error").get("message"));
            default -> { }
        }
    }

    private void caption(String who, Map<String, Object> event) {
        var text = (String) event.get("transcript");
        if (!text.isEmpty()) output.caption(who, text);
    }

    /** Move the playback on, and report it twice a second. */
    void play() {
        double reportedS = 0;
        while (!Thread.interrupted()) {
            try {
                Thread.sleep(10);
                synchronized (this) {
                    if (playback == null) continue;
                    playback.step(nowS());
                    boolean due = nowS() - reportedS > 0.5 || playback.over();
                    if (playback.playing() && due) {
                        send(playback.report());
                        reportedS = nowS();
                    }
                    if (playback.over()) playback = null;
                }
            } catch (InterruptedException stopped) {
                return;
            } catch (IOException error) {
                System.out.println("cannot write: " + error.getMessage());
                System.exit(1);
            }
        }
    }

    synchronized boolean busy(double lingerS) {
        return playback != null || !ready || nowS() - lastEventS < lingerS;
    }

    // -- the command -----------------------------------------------------------------------------

    public static void main(String[] arguments) throws Exception {
        var options = new HashMap<>(Map.of("url", "ws://127.0.0.1:8765/v1/realtime",
                "out", "avatar-output", "linger", "3"));
        // More: token, mode, avatar (id), say (text), wav (16-bit mono at RATE); mic, speaker, window.
        var flags = List.of("mic", "speaker", "window");
        for (int i = 0; i < arguments.length; i++) {
            var name = arguments[i].replaceFirst("^--", "");
            options.put(name, flags.contains(name) ? "" : arguments[++i]);
        }
        var out = Path.of(options.get("out"));
        var output = new Output(out, options.containsKey("speaker"), options.containsKey("window"));
        var avatar = new Avatar(options, output);
        daemon(avatar::run).start();
        daemon(avatar::play).start();
        while (!avatar.ready) Thread.sleep(20);
        if (options.containsKey("say")) {
            avatar.send(Json.text(Map.of("type", "avatar.speak", "text", options.get("say"))));
        }
        if (options.containsKey("wav")) avatar.hearFile(Path.of(options.get("wav")));
        if (options.containsKey("mic")) avatar.hearMicrophone();
        double lingerS = Double.parseDouble(options.get("linger"));
        while (avatar.busy(lingerS)) Thread.sleep(50);
        synchronized (avatar) {
            output.close();
        }
        System.exit(0);  // a window would keep the program alive
    }

    /** A WAV file at the speed of speech, then a second of silence, so that the turn ends. */
    private void hearFile(Path path) throws Exception {
        byte[] pcm;
        try (var stream = AudioSystem.getAudioInputStream(path.toFile())) {
            if (!stream.getFormat().matches(PCM)) throw new IOException(path + ": not " + PCM);
            pcm = stream.readAllBytes();
        }
        double startS = nowS();
        for (int at = 0; at < pcm.length + 2 * RATE; at += PACKET) {
            double waitS = startS + at / 2.0 / RATE - nowS();
            if (waitS > 0) Thread.sleep((long) (1000 * waitS));
            hear(at < pcm.length ? Arrays.copyOfRange(pcm, at, at + PACKET) : new byte[PACKET]);
        }
    }

    private void hearMicrophone() throws Exception {
        try (var line = AudioSystem.getTargetDataLine(PCM)) {
            line.open(PCM, PACKET * 5);
            line.start();
            while (true) {
                byte[] packet = new byte[PACKET];
                line.read(packet, 0, PACKET);
                hear(packet);
            }
        }
    }

    private static double nowS() {
        return System.nanoTime() / 1e9;
    }

    private static Thread daemon(Runnable work) {
        var thread = new Thread(work);
        thread.setDaemon(true);
        return thread;
    }

    // -- JSON, as much of it as is needed --------------------------------------------------------

    /** Objects are Maps, arrays Lists, numbers Doubles. In a larger program use a library. */
    static class Json {
        private final String text;
        private int at;

        private Json(String text) {
            this.text = text;
        }

        @SuppressWarnings("unchecked")
        static Map<String, Object> object(String text) {
            return (Map<String, Object>) new Json(text).value();
        }

        /** The object in this field; empty where there is none. */
        @SuppressWarnings("unchecked")
        static Map<String, Object> at(Map<String, Object> object, String name) {
            return object.get(name) instanceof Map<?, ?> map ? (Map<String, Object>) map : Map.of();
        }

        static String text(Object value) {
            if (value instanceof Map<?, ?> map) {
                var fields = map.entrySet().stream()
                        .map(field -> text(field.getKey()) + ":" + text(field.getValue())).toList();
                return "{" + String.join(",", fields) + "}";
            }
            if (value instanceof String string) {
                var quoted = new StringBuilder("\"");
                string.chars().forEach(c -> {
                    if (c == '"' || c == '\\') quoted.append('\\').append((char) c);
                    else if (c < ' ') quoted.append(String.format("\\u%04x", c));
                    else quoted.append((char) c);
                });
                return quoted.append('"').toString();
            }
            return String.valueOf(value);
        }

        private Object value() {
            switch (peek()) {
                case '{' -> {
                    var map = new LinkedHashMap<String, Object>();
                    for (at++; peek() != '}'; skip(',')) {
                        var name = string();
                        skip(':');
                        map.put(name, value());
                    }
                    at++;
                    return map;
                }
                case '[' -> {
                    var list = new java.util.ArrayList<>();
                    for (at++; peek() != ']'; skip(',')) list.add(value());
                    at++;
                    return list;
                }
                case '"' -> {
                    return string();
                }
                default -> {
                    int from = at;
                    while (at < text.length() && ",]} \n\r\t".indexOf(text.charAt(at)) < 0) at++;
                    var word = text.substring(from, at);
                    return switch (word) {
                        case "null" -> null;
                        case "true" -> true;
                        case "false" -> false;
                        default -> Double.valueOf(word);
                    };
                }
            }
        }

        private String string() {
            var result = new StringBuilder();
            skip('"');
            for (char c; (c = text.charAt(at++)) != '"'; ) {
                if (c != '\\') {
                    result.append(c);
                    continue;
                }
                char escaped = text.charAt(at++);
                if (escaped == 'u') {
                    result.append((char) Integer.parseInt(text.substring(at, at + 4), 16));
                    at += 4;
                } else {
                    int plain = "bfnrt".indexOf(escaped);
                    result.append(plain < 0 ? escaped : "\b\f\n\r\t".charAt(plain));
                }
            }
            return result.toString();
        }

        private char peek() {
            while (Character.isWhitespace(text.charAt(at))) at++;
            return text.charAt(at);
        }

        /** Skip this character if it is next. */
        private void skip(char wanted) {
            if (peek() == wanted) at++;
        }
    }
}
