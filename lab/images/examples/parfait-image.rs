//! Runs a built-in image by itself, without the rest of Parfait: `parfait-image stand-in --port tcp/8080`.
//! The tests run this.

fn main() -> std::process::ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    let name = args.remove(0);
    match parfait_lab_images::applet(&name) {
        Some(applet) => applet(args),
        None => parfait_lab_images::main(args),
    }
}
