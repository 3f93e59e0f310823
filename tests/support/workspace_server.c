/* Stands for a workspace's server in a container: answers where it is asked to, an instant after its start.

   FAKE_EXIT: exit with this code at once, a line said. FAKE_STUBBORN: ignore SIGTERM. FAKE_EAT: take that many MiB of
   memory. FAKE_MUTE: never listen. FAKE_TALK: say that many lines first. FAKE_WRITE: append a line to that file. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-JupyterHub-Version: 6.1.1\r\n"
    "Content-Length: 2\r\nConnection: close\r\n\r\n{}";

static void leave(int number) { _exit(128 + number); }

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static void behave(void) {
    for (long line = 0; line < number("FAKE_TALK"); line++) printf("line %ld\n", line);
    printf("the server starts\n");
    if (getenv("FAKE_WRITE")) {
        FILE *file = fopen(getenv("FAKE_WRITE"), "a");
        if (!file) { perror("FAKE_WRITE"); exit(9); }
        fprintf(file, "once more\n");
        fclose(file);
    }
    if (getenv("FAKE_EXIT")) { fprintf(stderr, "the server gives up\n"); fflush(stdout); exit(number("FAKE_EXIT")); }
    fflush(stdout);
    if (number("FAKE_EAT")) {
        size_t size = (size_t)number("FAKE_EAT") << 20;
        volatile char *eaten = malloc(size);
        for (size_t at = 0; at < size; at += 4096) eaten[at] = 1;
    }
}

int main(void) {
    signal(SIGTERM, getenv("FAKE_STUBBORN") ? SIG_IGN : leave);
    behave();
    if (getenv("FAKE_MUTE")) for (;;) pause();
    const char *url = getenv("JUPYTERHUB_SERVICE_URL");
    const char *colon = url ? strchr(url + 7, ':') : NULL;
    int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(colon ? atoi(colon + 1) : 8888)};
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 128)) { perror("listen"); return 1; }
    char request[4096];
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0) continue;
        if (read(client, request, sizeof request) > 0) write(client, ANSWER, sizeof ANSWER - 1);
        close(client);
    }
}
