from k2.local.java import java_environ


def test_what_would_change_our_jvms_is_left_out_and_the_rest_kept() -> None:
    environ = {
        "PATH": "/bin",
        "JAVA_TOOL_OPTIONS": "-javaagent:x",
        "CLASSPATH": "/x",
        "QUARKUS_HTTP_PORT": "1",
        "APICURIO_STORAGE_KIND": "kafkasql",
    }

    assert java_environ(environ, {"QUARKUS_HTTP_PORT": "2"}) == {
        "PATH": "/bin",
        "QUARKUS_HTTP_PORT": "2",
    }
