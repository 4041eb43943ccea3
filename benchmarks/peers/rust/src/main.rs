// check-if-email-exists (the crate behind Reacher): answers address after address, as the benchmark asks.
use check_if_email_exists::smtp::verif_method::VerifMethod;
use check_if_email_exists::{check_email, CheckEmailInputBuilder, Reachable};
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

async fn ask(email: &str) -> (&'static str, f64) {
    let input = CheckEmailInputBuilder::default()
        .to_email(email.to_string())
        .verif_method(VerifMethod::new_with_same_config_for_all(
            None,
            "good.lab.example.com".into(),
            "probe@lab.example.com".into(),
            25,
            Some(Duration::from_secs(10)),
            1,
        ))
        .build()
        .expect("a complete input");
    let started = Instant::now();
    let found = check_email(&input).await;
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    // Its verdict mixes the mailbox with flags (a role account is "risky"); the mailbox alone counts.
    let said = match (&found.is_reachable, &found.smtp) {
        (Reachable::Unknown, _) => "unknown",
        (_, Ok(smtp)) if smtp.is_catch_all => "accepts all",
        (_, Ok(smtp)) if smtp.has_full_inbox => "full",
        (Reachable::Risky, Ok(smtp)) if !smtp.is_deliverable => "missing",
        (Reachable::Invalid, _) => "missing",
        _ => "exists",
    };
    (said, ms)
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let at_once = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let places = Arc::new(Semaphore::new(at_once));
    let (send, mut answers) = tokio::sync::mpsc::unbounded_channel::<String>();
    println!("ready");
    io::stdout().flush().unwrap();
    let writer = tokio::spawn(async move {
        while let Some(line) = answers.recv().await {
            println!("{line}");
            io::stdout().flush().unwrap();
        }
    });
    let (ask_for, mut emails) = tokio::sync::mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = ask_for.send(line);
        }
    });
    while let Some(email) = emails.recv().await {
        let place = places.clone().acquire_owned().await.unwrap();
        let send = send.clone();
        tokio::spawn(async move {
            let (said, ms) = ask(&email).await;
            let line = serde_json::json!({"email": email, "said": said, "ms": ms});
            let _ = send.send(line.to_string());
            drop(place);
        });
    }
    drop(send);
    let _ = writer.await;
}
