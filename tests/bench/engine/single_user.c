/* Stands for a single-user server that starts at once: says the same to every request, exits at once when asked to. */
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                             "X-JupyterHub-Version: " HUB_VERSION "\r\nConnection: close\r\n\r\n{}";

static void end(int number) { (void)number; _exit(0); }

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8888)};
    struct timeval patience = {.tv_sec = 1};
    int one = 1, client, server = socket(AF_INET, SOCK_STREAM, 0);
    char request[8192];

    /* The first process of a container has no default for signals. */
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 128)) return 1;
    while ((client = accept(server, 0, 0)) >= 0) {
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (read(client, request, sizeof request) > 0 && write(client, ANSWER, strlen(ANSWER)) < 0) { /* it has gone */ }
        close(client);
    }
    return 1;
}
