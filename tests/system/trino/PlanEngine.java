import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.trino.Session;
import io.trino.spi.type.TimeZoneKey;
import io.trino.testing.MaterializedResult;
import io.trino.testing.MaterializedRow;
import io.trino.testing.StandaloneQueryRunner;
import io.trino.testing.TestingSession;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Runs the SQL of plans on Trino. Reads one JSON object a line: `sql` with question marks, and `using`, the values
 * as SQL; answers with the rows found, or an `error`.
 */
public final class PlanEngine
{
    public static void main(String[] arguments)
            throws Exception
    {
        PrintStream answers = new PrintStream(System.out, true, UTF_8);
        ObjectMapper json = new ObjectMapper();
        Session session = TestingSession.testSessionBuilder()
                .setTimeZoneKey(TimeZoneKey.getTimeZoneKey("America/New_York"))
                .build();
        try (StandaloneQueryRunner trino = new StandaloneQueryRunner(session);
                BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                Map<String, Object> answer = new LinkedHashMap<>();
                try {
                    answer.put("rows", rows(trino, session, json.readTree(line)));
                }
                catch (Exception e) {
                    answer.put("error", String.valueOf(e.getMessage()));
                }
                answers.println("answer " + json.writeValueAsString(answer));
            }
        }
        System.exit(0);
    }

    private static List<Map<String, Object>> rows(StandaloneQueryRunner trino, Session session, JsonNode asked)
    {
        Session prepared = Session.builder(session).addPreparedStatement("plan", asked.get("sql").asText()).build();
        String using = asked.get("using").asText();
        MaterializedResult found = trino.execute(prepared, "EXECUTE plan" + (using.isEmpty() ? "" : " USING " + using));
        List<Map<String, Object>> rows = new ArrayList<>();
        for (MaterializedRow row : found.getMaterializedRows()) {
            Map<String, Object> told = new LinkedHashMap<>();
            for (int field = 0; field < row.getFieldCount(); field++) {
                told.put(found.getColumnNames().get(field), told(row.getField(field)));
            }
            rows.add(told);
        }
        return rows;
    }

    private static Object told(Object value)
    {
        if (value == null || value instanceof Integer || value instanceof Long || value instanceof Boolean || value instanceof List) {
            return value;
        }
        return value.toString();
    }
}
