// Spring's client of Confluent's REST API and Avro's own Java library against a running registry.
//
//     java -cp 'lib/*' Client.java http://host:port SUBJECT
//
// Registers a record and its successor, fetches them by version and by id, writes a framed record under the first and
// reads it under the second; an incompatible third must be refused. Prints one line; any failure is an exception.

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.springframework.cloud.schema.registry.SchemaReference;
import org.springframework.cloud.schema.registry.SchemaRegistrationResponse;
import org.springframework.cloud.schema.registry.client.ConfluentSchemaRegistryClient;

public class Client {
    static final String FIRST =
        "{\"type\":\"record\",\"name\":\"Person\",\"namespace\":\"gov\",\"fields\":[{\"name\":\"name\",\"type\":\"string\"}]}";
    static final String SECOND =
        "{\"type\":\"record\",\"name\":\"Person\",\"namespace\":\"gov\",\"fields\":[{\"name\":\"name\",\"type\":\"string\"},"
            + "{\"name\":\"district\",\"type\":\"string\",\"default\":\"东城\"}]}";
    static final String THIRD =
        "{\"type\":\"record\",\"name\":\"Person\",\"namespace\":\"gov\",\"fields\":[{\"name\":\"name\",\"type\":\"int\"}]}";

    public static void main(String[] arguments) throws Exception {
        String subject = arguments[1];
        ConfluentSchemaRegistryClient client = new ConfluentSchemaRegistryClient();
        client.setEndpoint(arguments[0]);
        SchemaRegistrationResponse first = client.register(subject, "avro", FIRST);
        SchemaRegistrationResponse second = client.register(subject, "avro", SECOND);
        require(first.getId() != second.getId(), "two schemas have one id");
        require(client.register(subject, "avro", FIRST).getId() == first.getId(), "a schema has two ids");
        SchemaReference reference = second.getSchemaReference();
        require(reference.getVersion() == 2, "version " + reference.getVersion());
        Schema reader = new Schema.Parser().parse(client.fetch(reference));
        require(reader.equals(new Schema.Parser().parse(SECOND)), "another schema came back");

        Schema writer = new Schema.Parser().parse(client.fetch(first.getId()));
        GenericRecord person = new GenericData.Record(writer);
        person.put("name", "王");
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(body, null);
        new GenericDatumWriter<GenericRecord>(writer).write(person, encoder);
        encoder.flush();
        byte[] framed = ByteBuffer.allocate(5 + body.size()).put((byte) 0).putInt(first.getId()).put(body.toByteArray()).array();

        Schema written = new Schema.Parser().parse(client.fetch(ByteBuffer.wrap(framed, 1, 4).getInt()));
        GenericRecord read = new GenericDatumReader<GenericRecord>(written, reader)
            .read(null, DecoderFactory.get().binaryDecoder(Arrays.copyOfRange(framed, 5, framed.length), null));
        require(read.get("name").toString().equals("王") && read.get("district").toString().equals("东城"), read.toString());

        boolean refused = false;
        try {
            client.register(subject, "avro", THIRD);
        } catch (RuntimeException error) {
            refused = String.valueOf(error).contains("409") || String.valueOf(error.getCause()).contains("409");
        }
        require(refused, "an incompatible schema was taken");
        System.out.println("ids " + first.getId() + " " + second.getId());
    }

    static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }
}
